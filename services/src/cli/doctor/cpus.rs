//! The CPUs that the cores run on, and what else wants them.

use super::Needs;
use super::check::{Check, Kernel, numbers, read};
use flotilla_runtime::driver::cpu_quota;
use std::path::PathBuf;

/// Devices whose interrupts come often: disks and networks.
const BUSY_DEVICES: [&str; 10] =
    ["nvme", "virtio", "eth", "ens", "enp", "eno", "mlx", "ixgbe", "i40e", "megasas"];

pub(super) fn checks(kernel: &Kernel, needs: &Needs) -> Vec<Check> {
    let allowed = allowed();
    vec![
        placement(&allowed, needs),
        quota(kernel, needs),
        governor(kernel),
        siblings(kernel, needs),
        interrupts(kernel, needs),
        memory_nodes(kernel, needs),
    ]
}

/// The CPUs that this process may use.
fn allowed() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

fn placement(allowed: &[usize], needs: &Needs) -> Check {
    const NAME: &str = "cpus";
    let missing: Vec<_> = needs.cpus.iter().filter(|cpu| !allowed.contains(cpu)).collect();
    if !missing.is_empty() {
        let found = format!("{missing:?} of `cpus` aren't among {allowed:?}");
        return Check::fail(NAME, found, "a core is bound to a CPU that this process may not use")
            .cure("name other CPUs in `cpus`, or AllowedCPUs= in the unit");
    }
    let (cores, cpus) = (usize::from(needs.cores), allowed.len());
    if cores > cpus {
        let found = format!("{cores} cores on {cpus} CPUs");
        return Check::warn(NAME, found, "cores that share a CPU wait for each other")
            .cure(format!("cores = {cpus}"));
    }
    Check::ok(NAME, format!("{cpus}, for {cores} core{}", if cores == 1 { "" } else { "s" }))
}

fn quota(kernel: &Kernel, needs: &Needs) -> Check {
    const NAME: &str = "cpu-quota";
    let Some(quota) = cpu_quota(|path| kernel.read(path)) else { return Check::ok(NAME, "none") };
    let found = format!("{quota:.1} CPUs");
    if quota >= f64::from(needs.cores) {
        return Check::ok(NAME, found);
    }
    Check::warn(NAME, found, "the kernel stops all cores for the rest of each period when it is used up")
        .cure("give whole CPUs (a cpuset) instead of a quota, or fewer cores")
}

fn governor(kernel: &Kernel) -> Check {
    const NAME: &str = "governor";
    let files: Vec<PathBuf> = kernel
        .list("/sys/devices/system/cpu")
        .into_iter()
        .map(|cpu| cpu.join("cpufreq/scaling_governor"))
        .filter(|file| file.is_file())
        .collect();
    let slow: Vec<_> =
        files.iter().filter(|file| read(file).is_some_and(|name| name != "performance")).cloned().collect();
    match (files.len(), slow.first().and_then(|file| read(file))) {
        (0, _) => Check::skipped(NAME, "no frequency scaling here (a virtual machine?)"),
        (all, None) => Check::ok(NAME, format!("performance on {all} CPUs")),
        (all, Some(name)) => {
            let found = format!("{name} on {} of {all} CPUs", slow.len());
            Check::warn(NAME, found, "a CPU that was idle is slow when a request comes")
                .setting("performance", slow)
        }
    }
}

fn siblings(kernel: &Kernel, needs: &Needs) -> Check {
    const NAME: &str = "smt";
    match kernel.read("/sys/devices/system/cpu/smt/active").as_deref() {
        None => return Check::skipped(NAME, "not shown"),
        Some("1") => {}
        Some(_) => return Check::ok(NAME, "off"),
    }
    let shared = needs.cpus.iter().filter(|cpu| {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let siblings = kernel.read(&file).map(|list| numbers(&list)).unwrap_or_default();
        siblings.iter().any(|other| other != *cpu && needs.cpus.contains(other))
    });
    let shared: Vec<_> = shared.collect();
    if shared.is_empty() {
        return Check::ok(NAME, "on, and no two cores of this node share one");
    }
    let found = format!("on, and {shared:?} of `cpus` are siblings");
    Check::warn(NAME, found, "two cores on the halves of one are each at about 60 %")
        .cure("name one of each pair in `cpus` (`lscpu -e` shows them)")
}

fn interrupts(kernel: &Kernel, needs: &Needs) -> Check {
    const NAME: &str = "interrupts";
    if needs.cpus.is_empty() {
        return Check::skipped(NAME, "the cores aren't bound to CPUs (`cpus`)");
    }
    let Some(table) = kernel.read("/proc/interrupts") else { return Check::skipped(NAME, "not shown") };
    let busy = table.lines().filter_map(|line| {
        let (number, rest) = line.trim().split_once(':')?;
        let number: u32 = number.parse().ok()?;
        let device = rest.split_whitespace().last()?;
        BUSY_DEVICES.iter().any(|known| device.contains(known)).then(|| (number, device.to_owned()))
    });
    let on_cores: Vec<String> = busy
        .filter(|(number, _)| {
            let list = kernel.read(&format!("/proc/irq/{number}/effective_affinity_list"));
            list.is_some_and(|list| numbers(&list).iter().any(|cpu| needs.cpus.contains(cpu)))
        })
        .map(|(number, device)| format!("{number} ({device})"))
        .collect();
    if on_cores.is_empty() {
        return Check::ok(NAME, "disks and networks interrupt other CPUs");
    }
    let found = format!("on this node's CPUs: {}", on_cores.join(", "));
    Check::warn(NAME, found, "a core is stopped for each; with CPUs to spare they belong there")
        .cure("echo CPUS > /proc/irq/N/smp_affinity_list, and `systemctl disable --now irqbalance`")
}

fn memory_nodes(kernel: &Kernel, needs: &Needs) -> Check {
    const NAME: &str = "numa";
    let nodes = kernel.read("/sys/devices/system/node/online").map(|list| numbers(&list)).unwrap_or_default();
    if nodes.len() < 2 {
        return Check::ok(NAME, "one memory node");
    }
    let used = nodes.iter().filter(|node| {
        let cpus = kernel.read(&format!("/sys/devices/system/node/node{node}/cpulist"));
        cpus.is_some_and(|list| numbers(&list).iter().any(|cpu| needs.cpus.contains(cpu)))
    });
    let used: Vec<_> = used.collect();
    match used.len() {
        0 => Check::warn(NAME, format!("{} memory nodes, `cpus` isn't set", nodes.len()), FAR_MEMORY)
            .cure("bind the cores to the CPUs of one of them (`cpus`), or run a node on each"),
        1 => Check::ok(NAME, format!("all cores on memory node {}", used[0])),
        _ => Check::warn(NAME, format!("the cores are on memory nodes {used:?}"), FAR_MEMORY)
            .cure("run a node on each of them"),
    }
}

const FAR_MEMORY: &str = "messages between cores cross the machine, and so may a core's own memory";

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::super::testing::kernel_of;
    use super::*;

    fn bound_to(cpus: &[usize]) -> Needs {
        Needs { cpus: cpus.to_vec(), cores: u16::try_from(cpus.len()).unwrap(), ..Needs::default() }
    }

    #[test]
    fn cores_must_have_their_cpus() {
        assert_eq!(placement(&[0, 1], &bound_to(&[1, 2])).verdict, Verdict::Fail);
        assert_eq!(placement(&[0, 1], &bound_to(&[0, 1])).verdict, Verdict::Ok);
        assert_eq!(placement(&[0], &Needs { cores: 2, ..Needs::default() }).verdict, Verdict::Warn);
    }

    #[test]
    fn a_quota_below_the_cores_is_seen_in_both_kinds_of_cgroups() {
        let two = Needs { cores: 2, ..Needs::default() };
        for (files, expected) in [
            (vec![("/sys/fs/cgroup/cpu.max", "max 100000")], Verdict::Ok),
            (vec![("/sys/fs/cgroup/cpu.max", "150000 100000")], Verdict::Warn),
            (vec![("/sys/fs/cgroup/cpu.max", "200000 100000")], Verdict::Ok),
            (
                vec![
                    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000"),
                    ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
                ],
                Verdict::Warn,
            ),
            (vec![("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")], Verdict::Ok),
        ] {
            let (_keep, kernel) = kernel_of(&files);
            assert_eq!(quota(&kernel, &two).verdict, expected, "{files:?}");
        }
    }

    #[test]
    fn a_saving_governor_is_told_and_mended_on_every_cpu() {
        let (_keep, kernel) = kernel_of(&[
            ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance"),
            ("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave"),
            ("/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave"),
        ]);
        let check = governor(&kernel);
        assert_eq!((check.verdict, check.settings.len()), (Verdict::Warn, 2));
        assert_eq!(check.found, "powersave on 2 of 3 CPUs");
        let (_keep, kernel) = kernel_of(&[]);
        assert_eq!(governor(&kernel).verdict, Verdict::Skipped);
    }

    #[test]
    fn siblings_among_the_cores_are_seen() {
        let topology = |cpu| format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let files = [topology(0), topology(1), topology(2)];
        let (_keep, kernel) = kernel_of(&[
            ("/sys/devices/system/cpu/smt/active", "1"),
            (&files[0], "0,2"),
            (&files[1], "1,3"),
            (&files[2], "0,2"),
        ]);
        assert_eq!(siblings(&kernel, &bound_to(&[0, 1])).verdict, Verdict::Ok);
        assert_eq!(siblings(&kernel, &bound_to(&[0, 2])).verdict, Verdict::Warn);
    }

    #[test]
    fn interrupts_of_disks_and_networks_on_the_cores_are_seen() {
        let table =
            "   CPU0 CPU1\n 24: 10 0 PCI-MSI 0-edge virtio0-req.0\n 25: 0 9 IO-APIC 1-edge i8042\nNMI: 0 0 x";
        let (_keep, kernel) = kernel_of(&[
            ("/proc/interrupts", table),
            ("/proc/irq/24/effective_affinity_list", "1"),
            ("/proc/irq/25/effective_affinity_list", "0"),
        ]);
        assert_eq!(interrupts(&kernel, &bound_to(&[0])).verdict, Verdict::Ok);
        let check = interrupts(&kernel, &bound_to(&[0, 1]));
        assert!(check.verdict == Verdict::Warn && check.found.contains("24 (virtio0-req.0)"), "{check:?}");
        assert_eq!(interrupts(&kernel, &Needs::default()).verdict, Verdict::Skipped);
    }

    #[test]
    fn cores_on_two_memory_nodes_are_seen() {
        let (_keep, kernel) = kernel_of(&[
            ("/sys/devices/system/node/online", "0-1"),
            ("/sys/devices/system/node/node0/cpulist", "0-3"),
            ("/sys/devices/system/node/node1/cpulist", "4-7"),
        ]);
        assert_eq!(memory_nodes(&kernel, &bound_to(&[1, 2])).verdict, Verdict::Ok);
        assert_eq!(memory_nodes(&kernel, &bound_to(&[1, 4])).verdict, Verdict::Warn);
        assert_eq!(memory_nodes(&kernel, &Needs::default()).verdict, Verdict::Warn);
    }
}
