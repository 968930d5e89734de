//! Settings that change while the node runs: SIGHUP.
//!
//! Whoever reloads has checked the whole file, and that it differs only in what can change ([`crate::config::reload`]).

use super::Core;
use crate::acl::{DEFAULT_USER, User};
use crate::config::Config;
use flotilla_runtime::{ConnId, Now};
use std::any::Any;
use std::collections::BTreeSet;
use std::rc::Rc;

impl Core {
    /// Takes over the new settings, a [`Config`].
    pub(super) fn reloaded(&mut self, now: Now, settings: &(dyn Any + Send + Sync)) {
        let Some(new) = settings.downcast_ref::<Config>() else { return };
        let old = std::mem::replace(&mut self.config, Rc::new(new.clone()));
        self.connections.bound_by(new);
        for group in &mut self.groups {
            group.admission.set_wait_max(new.limits.write_wait_ms_max);
        }
        // Users that the files don't know, or that have been changed since, stay as they are unless the file says something new.
        let (before, after) = (old.all_users(), new.all_users());
        let names: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
        for name in names.into_iter().filter(|name| before.get(*name) != after.get(*name)) {
            let user = match after.get(name) {
                None if name == DEFAULT_USER => Some(User::unlimited()),
                user => user.cloned(),
            };
            self.user_changed(now, name, user.map(Box::new));
        }
        let all: Vec<ConnId> = self.connections.map.keys().copied().collect();
        all.into_iter().for_each(|conn| self.learn_access(now, conn));
    }
}
