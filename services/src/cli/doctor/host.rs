//! The kernel, its limits, memory and clock.

use super::Needs;
use super::check::{Check, Kernel};
use crate::cli::serve::DESCRIPTORS_A_CORE;
use crate::cli::words::bytes;
use flotilla_runtime::driver::floor;
use rustix::process::{Resource, getrlimit};

/// The oldest kernel with all that a core asks io_uring for, and the one from which on it does so well.
const OLDEST_KERNEL: (u32, u32) = (5, 8);
const GOOD_KERNEL: (u32, u32) = (5, 15);
/// Locked memory of a core: what is registered with its rings, and the rings.
const LOCKED_BYTES_A_CORE: u64 = 4 << 20;
/// Connections that wait to be accepted, at least.
const BACKLOG: u64 = 1024;

pub(super) fn checks(kernel: &Kernel, needs: &Needs) -> Vec<Check> {
    let memlock = getrlimit(Resource::Memlock).maximum;
    let nofile = getrlimit(Resource::Nofile).maximum;
    vec![
        version(kernel),
        io_uring(kernel, floor::try_ring()),
        locked_memory(memlock, needs.cores),
        open_files(nofile, needs),
        huge_pages(kernel),
        swap(kernel),
        clock(kernel),
        calendar(kernel),
        backlog(kernel),
    ]
}

fn version(kernel: &Kernel) -> Check {
    const NAME: &str = "kernel";
    let Some(release) = kernel.read("/proc/sys/kernel/osrelease") else {
        return Check::skipped(NAME, "no /proc/sys/kernel/osrelease");
    };
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version < OLDEST_KERNEL {
        return Check::fail(NAME, release, "io_uring lacks operations that every core needs before 5.8")
            .cure("install a newer kernel, 5.15 or later");
    }
    if version < GOOD_KERNEL {
        return Check::warn(NAME, release, "io_uring is slower and less tried before 5.15")
            .cure("install a newer kernel, 5.15 or later");
    }
    Check::ok(NAME, release)
}

fn io_uring(kernel: &Kernel, tried: std::io::Result<()>) -> Check {
    const NAME: &str = "io_uring";
    let disabled = kernel.read("/proc/sys/kernel/io_uring_disabled");
    match tried {
        Ok(()) => Check::ok(NAME, "a ring can be made"),
        Err(error) => {
            let check = Check::fail(NAME, format!("no ring: {error}"), "every core writes through one");
            match disabled.as_deref() {
                Some("1" | "2") => check.cure("sysctl -w kernel.io_uring_disabled=0"),
                _ => check.cure("allow io_uring_setup in the container's seccomp profile; raise `ulimit -l`"),
            }
        }
    }
}

fn locked_memory(limit: Option<u64>, cores: u16) -> Check {
    const NAME: &str = "memlock";
    let needed = u64::from(cores) * LOCKED_BYTES_A_CORE;
    match limit {
        None => Check::ok(NAME, "unlimited"),
        Some(limit) if limit >= needed => Check::ok(NAME, bytes(limit)),
        Some(limit) => {
            let found = format!("{}, {} wanted for {cores} cores", bytes(limit), bytes(needed));
            Check::fail(NAME, found, "the cores' rings and their buffers are locked memory")
                .cure("LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited`")
        }
    }
}

fn open_files(limit: Option<u64>, needs: &Needs) -> Check {
    const NAME: &str = "open-files";
    let cores = u64::from(needs.cores);
    let own = cores * DESCRIPTORS_A_CORE;
    let needed = own + cores * needs.connections as u64;
    match limit {
        None => Check::ok(NAME, "unlimited"),
        Some(limit) if limit >= needed => Check::ok(NAME, limit.to_string()),
        Some(limit) => {
            let found = format!("{limit}, {needed} wanted for {} connections a core", needs.connections);
            let check = match limit < own {
                true => Check::fail(NAME, found, "a node doesn't start with less than 200 a core"),
                false => Check::warn(NAME, found, "clients are turned away when none is left"),
            };
            check.cure(format!("LimitNOFILE={needed} in the unit, or `ulimit -n {needed}`"))
        }
    }
}

fn huge_pages(kernel: &Kernel) -> Check {
    const NAME: &str = "huge-pages";
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    let Some(text) = kernel.read(FILE) else { return Check::skipped(NAME, "this kernel has none") };
    let chosen = text.split(['[', ']']).nth(1).unwrap_or(&text).to_owned();
    if chosen != "always" {
        return Check::ok(NAME, chosen);
    }
    let why = "the kernel stops a core for milliseconds to put a huge page together";
    Check::warn(NAME, chosen, why).setting("madvise", [kernel.path(FILE)])
}

fn swap(kernel: &Kernel) -> Check {
    const NAME: &str = "swap";
    const FILE: &str = "/proc/sys/vm/swappiness";
    let devices = kernel.read("/proc/swaps").map_or(0, |text| text.lines().skip(1).count());
    if devices == 0 {
        return Check::ok(NAME, "none");
    }
    let swappiness = kernel.read(FILE).and_then(|text| text.parse::<u32>().ok()).unwrap_or(60);
    if swappiness <= 10 {
        return Check::ok(NAME, format!("{devices} in use, swappiness {swappiness}"));
    }
    let found = format!("{devices} in use, swappiness {swappiness}");
    Check::warn(NAME, found, "all keys are in memory: a core that waits for a page waits for a disk")
        .setting("1", [kernel.path(FILE)])
}

fn clock(kernel: &Kernel) -> Check {
    const NAME: &str = "clock";
    const FILE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let Some(source) = kernel.read(FILE) else { return Check::skipped(NAME, "not shown") };
    let is_fast = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"].contains(&&*source);
    if is_fast {
        return Check::ok(NAME, source);
    }
    let others = kernel.read("/sys/devices/system/clocksource/clocksource0/available_clocksource");
    let check =
        Check::warn(NAME, source, "every look at this clock is a system call; each turn takes several");
    if others.is_some_and(|others| others.split(' ').any(|other| other == "tsc")) {
        return check.setting("tsc", [kernel.path(FILE)]);
    }
    check.cure("boot with clocksource=tsc, if the machine's is stable")
}

/// Whoever keeps clocks right says so in one of these files.
const TIME_KEEPERS: &[(&str, &str)] = &[
    ("/run/systemd/timesync/synchronized", "systemd-timesyncd"),
    ("/run/chrony/chronyd.pid", "chrony"),
    ("/run/chronyd.pid", "chrony"),
    ("/run/ntpd.pid", "ntpd"),
];

/// Keys expire by the leaders' clocks, and certificates are valid by everybody's.
fn calendar(kernel: &Kernel) -> Check {
    const NAME: &str = "time";
    match TIME_KEEPERS.iter().find(|(file, _)| kernel.has(file)) {
        Some((_, keeper)) => Check::ok(NAME, format!("kept by {keeper}")),
        None => {
            let why = "keys expire by the leaders' clocks, and a lease rests on how fast they go";
            Check::warn(NAME, "nobody seems to keep the clock right", why)
                .cure("apt-get install chrony, on every node")
        }
    }
}

fn backlog(kernel: &Kernel) -> Check {
    const NAME: &str = "backlog";
    const FILE: &str = "/proc/sys/net/core/somaxconn";
    let Some(limit) = kernel.read(FILE).and_then(|text| text.parse::<u64>().ok()) else {
        return Check::skipped(NAME, "not shown");
    };
    if limit >= BACKLOG {
        return Check::ok(NAME, format!("somaxconn {limit}"));
    }
    let why = "a burst of new connections is dropped, and each tries again a second later";
    Check::warn(NAME, format!("somaxconn {limit}"), why).setting("4096", [kernel.path(FILE)])
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::super::testing::kernel_of;
    use super::*;

    fn verdict(check: &Check) -> (Verdict, bool) {
        (check.verdict, !check.settings.is_empty())
    }

    #[test]
    fn an_old_kernel_fails() {
        for (release, expected) in [
            ("4.19.0-21-amd64", Verdict::Fail),
            ("5.10.0", Verdict::Warn),
            ("5.15.1-lts", Verdict::Ok),
            ("6.18.44", Verdict::Ok),
            ("nonsense", Verdict::Fail),
        ] {
            let (_keep, kernel) = kernel_of(&[("/proc/sys/kernel/osrelease", release)]);
            assert_eq!(version(&kernel).verdict, expected, "{release}");
        }
        let (_keep, nothing) = kernel_of(&[]);
        assert_eq!(version(&nothing).verdict, Verdict::Skipped);
    }

    #[test]
    fn a_ring_that_can_t_be_made_fails_with_the_reason() {
        let refused = || Err(std::io::Error::from_raw_os_error(1));
        let (_keep, kernel) = kernel_of(&[("/proc/sys/kernel/io_uring_disabled", "2")]);
        let check = io_uring(&kernel, refused());
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(check.cure.unwrap().contains("io_uring_disabled=0"));
        let (_keep, kernel) = kernel_of(&[]);
        assert!(io_uring(&kernel, refused()).cure.unwrap().contains("seccomp"));
        assert_eq!(io_uring(&kernel, Ok(())).verdict, Verdict::Ok);
    }

    #[test]
    fn limits_are_measured_against_what_the_node_needs() {
        let needs = Needs { cores: 2, connections: 10_000, ..Needs::default() };
        assert_eq!(locked_memory(Some(64 << 10), 2).verdict, Verdict::Fail);
        assert_eq!(locked_memory(Some(8 << 20), 2).verdict, Verdict::Ok);
        assert_eq!(locked_memory(None, 64).verdict, Verdict::Ok);
        assert_eq!(open_files(Some(100), &needs).verdict, Verdict::Fail);
        assert_eq!(open_files(Some(1024), &needs).verdict, Verdict::Warn);
        assert_eq!(open_files(Some(20_400), &needs).verdict, Verdict::Ok);
    }

    #[test]
    fn what_may_be_mended_says_how() {
        let file = "/sys/kernel/mm/transparent_hugepage/enabled";
        let (_keep, kernel) = kernel_of(&[(file, "[always] madvise never")]);
        assert_eq!(verdict(&huge_pages(&kernel)), (Verdict::Warn, true));
        let (_keep, kernel) = kernel_of(&[(file, "always [madvise] never")]);
        assert_eq!(verdict(&huge_pages(&kernel)), (Verdict::Ok, false));
        let swaps = "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2";
        let (_keep, kernel) = kernel_of(&[("/proc/swaps", swaps), ("/proc/sys/vm/swappiness", "60")]);
        assert_eq!(verdict(&swap(&kernel)), (Verdict::Warn, true));
        let (_keep, kernel) = kernel_of(&[("/proc/swaps", "Filename Type")]);
        assert_eq!(verdict(&swap(&kernel)), (Verdict::Ok, false));
        let clocks = "/sys/devices/system/clocksource/clocksource0/";
        let (current, available) =
            (format!("{clocks}current_clocksource"), format!("{clocks}available_clocksource"));
        let (_keep, kernel) = kernel_of(&[(&current, "hpet"), (&available, "hpet tsc")]);
        assert_eq!(verdict(&clock(&kernel)), (Verdict::Warn, true));
        let (_keep, kernel) = kernel_of(&[(&current, "hpet"), (&available, "hpet acpi_pm")]);
        assert_eq!(verdict(&clock(&kernel)), (Verdict::Warn, false));
        assert_eq!(verdict(&calendar(&kernel)), (Verdict::Warn, false));
        let (_keep, kernel) = kernel_of(&[("/run/chrony/chronyd.pid", "77")]);
        assert_eq!(verdict(&calendar(&kernel)), (Verdict::Ok, false));
        let (_keep, kernel) = kernel_of(&[("/proc/sys/net/core/somaxconn", "128")]);
        assert_eq!(verdict(&backlog(&kernel)), (Verdict::Warn, true));
    }
}
