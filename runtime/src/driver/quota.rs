//! How much CPU time a container has.

use std::path::Path;

const ROOT: &str = "/sys/fs/cgroup";

/// CPUs' worth of time that the process's control group has, or one that it is in, of either kind; `None` if that isn't bounded. `read` gives
/// a file's text, if it is there.
pub fn cpu_quota(read: impl Fn(&str) -> Option<String>) -> Option<f64> {
    let text = read("/proc/self/cgroup").unwrap_or_default();
    let (second_kind, first_kind) = own_groups(&text);
    let file = |group: &Path, name: &str| read(group.join(name).to_str()?);
    let of_second = |group: &Path| parse(&file(group, "cpu.max")?);
    let of_first = |group: &Path| {
        let (quota, period) = (file(group, "cpu.cfs_quota_us")?, file(group, "cpu.cfs_period_us")?);
        parse(&format!("{quota} {period}"))
    };
    let second = least(ROOT.as_ref(), second_kind, of_second);
    let first = least(&Path::new(ROOT).join("cpu"), first_kind, of_first);
    second.into_iter().chain(first).reduce(f64::min)
}

/// The least that a group and those around it have, up to the root of what can be seen.
fn least(root: &Path, own: &str, quota: impl Fn(&Path) -> Option<f64>) -> Option<f64> {
    let own = root.join(own.trim_start_matches('/'));
    own.ancestors().take_while(|group| group.starts_with(root)).filter_map(quota).reduce(f64::min)
}

/// From `/proc/self/cgroup`: the control group of the second kind, and of the first kind the one that bounds CPU time; the root where
/// there is none.
fn own_groups(text: &str) -> (&str, &str) {
    let mut groups = ("/", "/");
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("0"), Some(""), Some(group)) => groups.0 = group,
            (_, Some(controllers), Some(group)) if controllers.split(',').any(|it| it == "cpu") => {
                groups.1 = group;
            }
            _ => {}
        }
    }
    groups
}

/// Microseconds of a period; `max`, or -1, of them is without a bound.
fn parse(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let (quota, period): (f64, f64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(files: &[(&str, &str)]) -> Option<f64> {
        let find = |path: &str| files.iter().find(|(name, _)| *name == path);
        cpu_quota(|path| find(path).map(|(_, text)| (*text).to_owned()))
    }

    #[test]
    fn both_kinds_of_groups_bound_time_and_the_least_counts() {
        let own = ("/proc/self/cgroup", "4:memory:/m\n2:cpu,cpuacct:/t/u\n0::/a/b\n");
        let period = |path| (path, "100000\n");
        assert_eq!(quota(&[]), None);
        assert_eq!(
            quota(&[("/sys/fs/cgroup/cpu.max", "150000 100000\n")]),
            Some(1.5),
            "the root, if nothing else"
        );
        assert_eq!(quota(&[own, ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n")]), None);
        let around = [
            own,
            ("/sys/fs/cgroup/a/b/cpu.max", "300000 100000"),
            ("/sys/fs/cgroup/a/cpu.max", "200000 100000"),
        ];
        assert_eq!(quota(&around), Some(2.0), "whatever it is in bounds it, too");
        let first = [
            own,
            ("/sys/fs/cgroup/cpu/t/cpu.cfs_quota_us", "50000\n"),
            period("/sys/fs/cgroup/cpu/t/cpu.cfs_period_us"),
        ];
        assert_eq!(quota(&first), Some(0.5));
        let unbounded = [
            own,
            ("/sys/fs/cgroup/cpu/t/cpu.cfs_quota_us", "-1\n"),
            period("/sys/fs/cgroup/cpu/t/cpu.cfs_period_us"),
        ];
        assert_eq!(quota(&unbounded), None);
        assert_eq!((parse(""), parse("x 1"), parse("1")), (None, None, None));
    }
}
