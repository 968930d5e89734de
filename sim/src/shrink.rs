//! The smallest plan that still fails: without the faults, the time and the clients that the failure doesn't need.
//!
//! A plan with less in it is another simulation, which may break another rule: any failure counts. It is greedy and
//! stops when nothing more can be left out, or after so many simulations.

use crate::faults::Fault;
use crate::trace::Detail;
use crate::world::{Plan, simulate};

/// Simulations that looking for a smaller plan may take.
const SIMULATIONS_MAX: usize = 200;

/// Looks for a smaller plan that fails, too. Returns it with what it breaks, or `None` if this one doesn't fail.
pub fn shrink(plan: &Plan) -> Option<(Plan, String)> {
    let mut what = simulate(plan, Detail::Faults).failure?;
    let mut smallest = plan.clone();
    let mut left = SIMULATIONS_MAX;
    loop {
        let before = smallest.clone();
        for candidate in smaller(&before) {
            // Later candidates keep what earlier ones have left out.
            let candidate = merged(&smallest, &before, candidate);
            if left == 0 || candidate == smallest {
                continue;
            }
            left -= 1;
            if let Some(found) = simulate(&candidate, Detail::Faults).failure {
                (smallest, what) = (candidate, found);
            }
        }
        if smallest == before || left == 0 {
            return Some((smallest, what));
        }
    }
}

/// Plans with one thing less.
fn smaller(plan: &Plan) -> Vec<Plan> {
    let swarm = plan.swarm();
    let mut plans = Vec::new();
    for fault in Fault::ALL.iter().filter(|fault| fault.is_on(&swarm)) {
        let mut without = plan.clone();
        without.without.push(*fault);
        plans.push(without);
    }
    let safety_ms = swarm.safety / 1_000_000;
    for part in [2, 3] {
        let shorter = safety_ms * (part - 1) / part;
        plans.push(Plan { safety_ms: Some(shorter), ..plan.clone() });
    }
    if swarm.clients > 1 {
        plans.push(Plan { clients: Some(swarm.clients / 2), ..plan.clone() });
    }
    plans
}

/// `candidate` differs from `before` in one thing: the same difference from `smallest`.
fn merged(smallest: &Plan, before: &Plan, candidate: Plan) -> Plan {
    let mut merged = smallest.clone();
    let more = candidate.without.into_iter().filter(|fault| !before.without.contains(fault));
    merged.without.extend(more);
    if candidate.safety_ms != before.safety_ms {
        merged.safety_ms = candidate.safety_ms.min(smallest.safety_ms.or(Some(u64::MAX)));
    }
    if candidate.clients != before.clients {
        merged.clients = candidate.clients;
    }
    merged
}
