//! An operator spreads the groups' replicas over other nodes, and others again, while everything else goes wrong: by the plan and the
//! steps of `flotilla cluster rebalance`, one step at a time, of any group, and begins anew whenever somebody feels like it.

use super::{Happening, World};
use crate::faults::Fault;
use flotilla_runtime::NodeId;
use flotilla_services::core::MemberChange;
use flotilla_services::placement::{self, Group, Step};
use std::collections::BTreeMap;

/// A group keeps so many voters, see `members.rs`.
const REPLICAS: usize = 3;
/// Of a hundred steps, so many are before the operator wants something else.
const IMPATIENT_PERCENT: u64 = 2;

/// A group, and where it is led: the core, and the place there.
struct Led {
    group: Group,
    term: u64,
    at: usize,
    place: usize,
}

impl World {
    /// The next step towards the goal; another goal, if that is reached or forgotten.
    pub(super) fn follow_plan(&mut self) {
        if self.healed {
            return;
        }
        self.after(self.swarm.changes, Happening::Change);
        if self.goal.is_empty() || self.rng.between(0, 99) < IMPATIENT_PERCENT {
            self.want_other_nodes();
        }
        let led = self.led_groups();
        // Nobody plans without knowing all.
        let groups = self.swarm.groups + self.swarm.spare_groups + u32::from(self.swarm.spare_groups > 0);
        if led.len() < usize::try_from(groups).expect("few") {
            return;
        }
        let seen: Vec<Group> = led.values().map(|led| led.group.clone()).collect();
        let plan = placement::spread(&seen, &self.goal, None);
        let Ok(plan) = plan else { return self.goal.clear() };
        let step = |led: &Led| placement::next(&led.group, &plan[&led.group.number]);
        let open: Vec<_> =
            led.values().map(|led| (led, step(led))).filter(|(_, step)| *step != Step::Done).collect();
        let Some(most) = open.len().checked_sub(1) else {
            self.spreads += 1;
            self.trace.line(self.now, || format!("every group is spread over nodes {:?}", self.goal));
            return self.goal.clear();
        };
        let which = usize::try_from(self.rng.between(0, most as u64)).expect("few");
        let (Led { group, at, place, .. }, step) = &open[which];
        self.take_step(*at, *place, group.number, step);
    }

    fn want_other_nodes(&mut self) {
        let mut nodes: Vec<u32> = (1..=u32::try_from(self.swarm.nodes).expect("few")).collect();
        let count = usize::try_from(self.rng.between(REPLICAS as u64, self.swarm.nodes as u64)).expect("few");
        while nodes.len() > count {
            let which = self.rng.between(0, nodes.len() as u64 - 1);
            nodes.remove(usize::try_from(which).expect("few"));
        }
        self.goal = nodes.into_iter().collect();
        self.trace.line(self.now, || format!("the groups are to be spread over nodes {:?}", self.goal));
    }

    fn led_groups(&self) -> BTreeMap<u32, Led> {
        let mut found: BTreeMap<u32, Led> = BTreeMap::new();
        for (at, this) in self.cores.iter().enumerate() {
            let Some(core) = &this.core else { continue };
            let terms: Vec<u64> = core.inspect().groups.iter().map(|group| group.term).collect();
            for (place, term) in terms.into_iter().enumerate() {
                let Some(group) = core.standing(this.clock(self.now), place) else { continue };
                let is_newer = found.get(&group.number).is_none_or(|known| known.term < term);
                if is_newer {
                    found.insert(group.number, Led { group, term, at, place });
                }
            }
        }
        found
    }

    fn take_step(&mut self, at: usize, place: usize, group: u32, step: &Step) {
        let nodes = |nodes: &placement::Nodes| nodes.iter().copied().map(NodeId).collect();
        let change = match step {
            Step::Done | Step::Wait | Step::CatchUp(_) => return,
            Step::Transfer(heirs) => {
                let name = if group == u32::MAX { "controller".to_owned() } else { group.to_string() };
                return self.hand_over(at, &name, heirs[0]);
            }
            Step::Learn(them) => MemberChange::Add(nodes(them)),
            Step::Vote(them) => MemberChange::Set(nodes(them)),
            Step::Forget(them) => MemberChange::Remove(nodes(them)),
        };
        let this = &mut self.cores[at];
        let now = this.clock(self.now);
        let core = this.core.as_mut().expect("it leads");
        let answer = core.change_group(now, place, change);
        if answer.is_ok() {
            self.tally.note(Fault::Change);
        }
        self.trace.line(self.now, || format!("{} group {group}: {step:?} is {answer:?}", self.cores[at]));
        self.flush_soon(at);
    }
}
