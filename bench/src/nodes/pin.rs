//! CPUs of their own: each node's cores on theirs, the load generator on what is left.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPUs that the load generator needs for itself: its event loops, and the kernel's work for them.
const CLIENTS: usize = 2;

/// Which CPUs are whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// Of each node.
    pub(super) nodes: Vec<Vec<usize>>,
    /// Of the load generator.
    pub(super) clients: Vec<usize>,
}

impl Places {
    /// So many CPUs for each of so many nodes; none if there aren't enough.
    pub(super) fn new(cpus: &[usize], nodes: usize, cores: usize) -> Option<Self> {
        if cpus.len() < nodes * cores + CLIENTS {
            return None;
        }
        let (own, clients) = cpus.split_at(nodes * cores);
        Some(Self { nodes: own.chunks(cores).map(<[usize]>::to_vec).collect(), clients: clients.to_vec() })
    }

    /// CPUs that are needed.
    pub(super) fn needed(nodes: usize, cores: usize) -> usize {
        nodes * cores + CLIENTS
    }
}

/// The CPUs that this thread may use.
pub(super) fn allowed() -> std::io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Puts all threads of a process onto these CPUs. Those that they start later inherit them.
pub(super) fn process(pid: u32, cpus: &[usize]) -> std::io::Result<()> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = task?.file_name();
        let thread = name.to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
        match sched_setaffinity(thread, &set(cpus)) {
            // A thread that has ended meanwhile needs no place.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn set(cpus: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    set
}

/// This thread, and those that it starts, on other CPUs for as long as this lives.
pub(super) struct Moved(Vec<usize>);

impl Moved {
    pub(super) fn to(cpus: &[usize]) -> std::io::Result<Self> {
        let before = allowed()?;
        sched_setaffinity(None, &set(cpus))?;
        Ok(Self(before))
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        // They were allowed before. If they aren't any more, where it is now is as good.
        let _ = sched_setaffinity(None, &set(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_has_a_cpu_of_its_own_and_the_clients_the_rest() {
        let cpus: Vec<usize> = (10..19).collect();
        let places = Places::new(&cpus, 3, 2).unwrap();
        assert_eq!(places.nodes, [[10, 11], [12, 13], [14, 15]]);
        assert_eq!(places.clients, [16, 17, 18]);
        assert_eq!(Places::new(&cpus[..7], 3, 2), None);
        assert!(Places::new(&cpus[..Places::needed(3, 2)], 3, 2).is_some());
    }

    #[test]
    fn a_thread_moves_and_comes_back() {
        let before = allowed().unwrap();
        let last = vec![*before.last().unwrap()];
        let moved = Moved::to(&last).unwrap();
        let inherited = std::thread::spawn(|| allowed().unwrap()).join().unwrap();
        assert_eq!((allowed().unwrap(), inherited), (last.clone(), last.clone()));
        drop(moved);
        assert_eq!(allowed().unwrap(), before);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        process(child.id(), &last).unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let set = sched_getaffinity(pid).unwrap();
        child.kill().and_then(|()| child.wait()).unwrap();
        assert!(set.is_set(last[0]) && set.count() == 1);
    }
}
