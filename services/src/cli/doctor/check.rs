//! What was looked at, what was found, and what mends it.

use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// A node runs, but slower or less safely than it could.
    Warn,
    /// A node won't run here, or isn't safe.
    Fail,
    /// This host doesn't have it, or doesn't show it.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skipped => "-",
        })
    }
}

/// A setting of the running kernel that may be changed without harm to anybody: what to write, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Setting {
    pub(super) path: PathBuf,
    pub(super) value: String,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    /// Its name, for scripts: it doesn't change.
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) found: String,
    /// Why it matters; where it isn't ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<&'static str>,
    /// The command that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cure: Option<String>,
    /// What `--apply` writes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) settings: Vec<Setting>,
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        let (why, cure, settings) = Default::default();
        Self { name, verdict, found: found.into(), why, cure, settings }
    }

    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, found)
    }

    pub(super) fn skipped(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Skipped, found)
    }

    pub(super) fn warn(name: &'static str, found: impl Into<String>, why: &'static str) -> Self {
        Self { why: Some(why), ..Self::new(name, Verdict::Warn, found) }
    }

    pub(super) fn fail(name: &'static str, found: impl Into<String>, why: &'static str) -> Self {
        Self { why: Some(why), ..Self::new(name, Verdict::Fail, found) }
    }

    pub(super) fn cure(self, command: impl Into<String>) -> Self {
        Self { cure: Some(command.into()), ..self }
    }

    /// Mended by writing `value` to each of these files, which `--apply` does.
    pub(super) fn setting(self, value: &str, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let settings: Vec<_> =
            paths.into_iter().map(|path| Setting { path, value: value.to_owned() }).collect();
        let cure = settings.first().map(|first| match settings.len() {
            1 => format!("echo {value} > {}", first.path.display()),
            _ => format!("echo {value} | tee {} …", first.path.display()),
        });
        Self { cure: cure.or_else(|| self.cure.clone()), settings, ..self }
    }
}

/// The files in which the kernel shows itself; under another root in tests.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    root: PathBuf,
}

impl Kernel {
    pub(super) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The trimmed content of a file; `None` if it isn't there or can't be read.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        read(&self.path(path))
    }

    /// Whether there is such a file.
    pub(super) fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// What is in a folder, in order.
    pub(super) fn list(&self, path: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        paths
    }
}

pub(super) fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The numbers of a list as the kernel writes it: `0-3,8`. What makes no sense is left out.
pub(super) fn numbers(list: &str) -> Vec<usize> {
    let parts = list.split(',').filter_map(|part| {
        let part = part.trim();
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?.min(65_535))
    });
    parts.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(numbers("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(numbers(""), Vec::<usize>::new());
        assert_eq!(numbers("7,x,9-"), [7]);
    }

    #[test]
    fn a_setting_says_what_to_type() {
        let one = Check::warn("x", "y", "z").setting("1", ["/proc/a".into()]);
        assert_eq!(one.cure.as_deref(), Some("echo 1 > /proc/a"));
        let two = Check::warn("x", "y", "z").setting("1", ["/sys/a".into(), "/sys/b".into()]);
        assert_eq!(two.cure.as_deref(), Some("echo 1 | tee /sys/a …"));
        assert_eq!(two.settings.len(), 2);
    }
}
