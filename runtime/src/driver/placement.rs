//! On which CPUs the cores run, and whether they can.
//!
//! A pinned core's thread is pinned before it allocates anything, so by the kernel's own policy (memory comes from the NUMA
//! node of whoever touches it first) its heap, its blocks and its half of the mesh's rings are local to it. What a
//! container may use is known to the kernel's own sets; a quota of CPU time isn't, so it is read and told of.

use super::quota::cpu_quota;
use super::{NodeError, Placement};
use rustix::thread::{CpuSet, sched_getaffinity};
use std::fs;
use std::path::Path;

/// Says on which CPU each of so many cores is to run, none if the kernel is to choose.
///
/// # Errors
/// [`NodeError::Placement`]: there aren't as many CPUs as cores, two cores were to share one, or one isn't there for us.
pub(super) fn place(placement: &Placement, cores: usize) -> Result<Vec<Option<usize>>, NodeError> {
    let Placement::Pinned(cpus) = placement else { return Ok(vec![None; cores]) };
    let allowed = sched_getaffinity(None);
    check(cpus, cores, |cpu| allowed.as_ref().is_ok_and(|set| cpu < CpuSet::MAX_CPU && set.is_set(cpu)))?;
    Ok(cpus.iter().copied().map(Some).collect())
}

fn check(cpus: &[usize], cores: usize, is_allowed: impl Fn(usize) -> bool) -> Result<(), NodeError> {
    let refused = |core: usize, cpu, reason: String| {
        let core = u16::try_from(core).unwrap_or(u16::MAX);
        Err(NodeError::Placement { core, cpu, reason })
    };
    for (core, &cpu) in cpus.iter().enumerate() {
        if core == cores {
            return refused(core, cpu, format!("the node has {cores} cores only"));
        }
        if let Some(other) = cpus[..core].iter().position(|it| *it == cpu) {
            return refused(core, cpu, format!("core {other} runs there already"));
        }
        if !is_allowed(cpu) {
            let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| is_allowed(*cpu)).collect();
            let usable = in_words(&usable);
            return refused(core, cpu, format!("this process may use {usable}, and not that one"));
        }
    }
    match cpus.last() {
        Some(&last) if cpus.len() < cores => {
            refused(cpus.len(), last, format!("only {} CPUs are named for {cores} cores", cpus.len()))
        }
        None if cores > 0 => refused(0, 0, "no CPU is named".to_owned()),
        _ => Ok(()),
    }
}

/// CPUs as the kernel writes them: `0-3,8`.
fn in_words(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let run = |(first, last): (usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    if runs.is_empty() { "none".to_owned() } else { runs.into_iter().map(run).collect::<Vec<_>>().join(",") }
}

/// Tells where the cores run, and warns if they have less CPU time than there are of them.
pub(super) fn tell(places: &[Option<usize>]) {
    let nodes = numa_nodes(Path::new("/sys/devices/system/node"));
    for (core, cpu) in places.iter().enumerate() {
        if let Some(cpu) = cpu {
            let node = nodes.iter().find(|(_, cpus)| cpus.contains(cpu)).map(|(node, _)| *node);
            tracing::info!(core, cpu, numa_node = node, "a core is pinned");
        }
    }
    if let Some(cpus) = cpu_quota(|path| fs::read_to_string(path).ok())
        && cpus < places.len() as f64
    {
        let cores = places.len();
        tracing::warn!(
            cores,
            cpus,
            "the container's quota of CPU time is less than the cores can use: they will be held up"
        );
    }
}

/// The machine's NUMA nodes and their CPUs. None where the kernel tells none.
fn numa_nodes(folder: &Path) -> Vec<(u32, Vec<usize>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let node = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((number, parse_cpus(&fs::read_to_string(entry.path().join("cpulist")).ok()?)?))
    };
    entries.filter_map(|entry| node(entry.ok()?)).collect()
}

fn parse_cpus(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for run in text.trim().split(',').filter(|run| !run.is_empty()) {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        cpus.extend(first.parse().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let said =
            |cpus: &[usize], cores| check(cpus, cores, |cpu| cpu < 4 || cpu == 8).unwrap_err().to_string();
        assert!(check(&[0, 3, 8], 3, |cpu| cpu < 4 || cpu == 8).is_ok());
        assert!(said(&[0, 4], 2).contains("core 1 on CPU 4: this process may use 0-3,8, and not that one"));
        assert!(said(&[0, usize::MAX], 2).contains("and not that one"));
        assert!(said(&[2, 1, 2], 3).contains("core 2 on CPU 2: core 0 runs there already"));
        assert!(said(&[0, 1], 3).contains("only 2 CPUs are named for 3 cores"));
        assert!(said(&[0, 1], 1).contains("the node has 1 cores only"));
        assert!(said(&[], 1).contains("no CPU is named"));
    }

    #[test]
    fn the_kernel_s_words_are_understood() {
        assert_eq!(parse_cpus("0-2,8\n"), Some(vec![0, 1, 2, 8]));
        assert_eq!((parse_cpus("\n"), parse_cpus("x")), (Some(vec![]), None));
        assert_eq!(in_words(&parse_cpus("0-2,8").unwrap()), "0-2,8");
        for (_, cpus) in numa_nodes(Path::new("/sys/devices/system/node")) {
            assert!(cpus.len() <= CpuSet::MAX_CPU);
        }
    }

    #[test]
    fn the_cpus_of_this_process_will_do() {
        let allowed = sched_getaffinity(None).unwrap();
        let own: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
        let places = place(&Placement::Pinned(own.clone()), own.len()).unwrap();
        assert_eq!(places, own.into_iter().map(Some).collect::<Vec<_>>());
        assert_eq!(place(&Placement::Floating, 2), Ok(vec![None, None]));
        tell(&places);
    }
}
