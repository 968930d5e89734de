//! Commands that took long, for `SLOWLOG`, and what `CONFIG SET` changes about it.
//!
//! The log is that of the core which the client is connected to, as `ACL LOG` is; its settings are the node's.

use super::Core;
use super::remote::{Message, Origin};
use crate::command::slowlog::{Asker, Setting};
use crate::command::{Spec, code};
use flotilla_runtime::{ConnId, CoreId, Effect, Effects, Nanos};

impl Core {
    /// The reply of `origin` has just been written: who waited for it for too long, and how long.
    #[inline]
    pub(super) fn was_slow(&mut self, origin: Origin) -> Option<(ConnId, Nanos)> {
        let took = self.connections.take_took()?;
        let Origin::Local { conn, .. } = origin else { return None };
        self.slowlog.is_slow(took).then_some((conn, took))
    }

    /// A command was answered on the spot, which is slow only if everything is.
    #[inline]
    pub(super) fn note_if_all(&mut self, conn: ConnId, spec: &'static Spec, args: &[&[u8]]) {
        if self.slowlog.is_slow(0) {
            self.note_slow(conn, spec, args, 0);
        }
    }

    /// The reply to a command that was sent elsewhere is here. Of its arguments there may be nothing left.
    pub(super) fn note_if_slow_elsewhere(&mut self, conn: ConnId, spec: &'static Spec) {
        let took = self.connections.take_took();
        if let Some(nanos) = took.filter(|nanos| self.slowlog.is_slow(*nanos)) {
            self.note_slow(conn, spec, &[spec.name.as_bytes(), b"... (done by another core)"], nanos);
        }
    }

    /// Takes a slow command down.
    #[cold]
    pub(super) fn note_slow(&mut self, conn: ConnId, spec: &'static Spec, args: &[&[u8]], nanos: Nanos) {
        let name = self.connections.map.get(&conn).map_or(&[][..], |connection| &connection.state.name);
        let asker = Asker { connection: conn.0, name };
        self.slowlog.log(asker, spec, args, (self.connections.unix_ms, nanos));
    }

    /// A client changes settings of this node.
    pub(super) fn set(&mut self, changes: &[(Setting, i64)]) {
        changes.iter().for_each(|(setting, value)| self.slowlog.set(*setting, *value));
        self.setting_news.extend_from_slice(changes);
    }

    /// Tells the other cores of it.
    pub(super) fn spread_settings(&mut self, out: &mut Effects<Message>) {
        for (setting, value) in std::mem::take(&mut self.setting_news) {
            for core in (0..self.config.me().cores).map(CoreId).filter(|core| *core != self.id) {
                out.push(Effect::Mesh { to: core, message: Message::Set { setting, value } });
            }
        }
    }

    /// Whether a command empties the log.
    pub(super) fn resets_slowlog(spec: &Spec, args: &[&[u8]]) -> bool {
        spec.code == code::SLOWLOG && args.len() == 2 && args[1].eq_ignore_ascii_case(b"RESET")
    }
}
