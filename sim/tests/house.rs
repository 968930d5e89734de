//! The house as `ARCHITECTURE.md` describes it: arrows one way, hands in one room, files that fit a head.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn files(of: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, ending, found);
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

/// Every Rust file below `of` (from the root), with its path from the root and its text.
fn sources(of: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root().join(of), ".rs", &mut found);
    assert!(!found.is_empty(), "{of} has no sources");
    let named = found.into_iter().map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), text)
    });
    named.collect()
}

/// The lines of code, without comments and strings that only talk about it, and without the tests at the end.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The crates of ours that a crate's manifest names under `[dependencies]`.
fn arrows(of: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join(of).join("Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    let ours = dependencies.lines().filter_map(|line| line.strip_prefix("flotilla-"));
    let mut ours: Vec<String> =
        ours.map(|rest| rest.split(['.', ' ', '=']).next().unwrap().to_owned()).collect();
    ours.sort();
    ours
}

#[test]
fn arrows_point_one_way() {
    let order = ["runtime", "storage", "consensus", "services"];
    for (place, room) in order.iter().enumerate() {
        for target in arrows(room) {
            let to = order.iter().position(|room| *room == target);
            assert!(to.is_some_and(|to| to < place), "{room} may not depend on {target}");
        }
    }
    for room in ["sim", "bench"] {
        for target in arrows(room) {
            assert!(order.contains(&target.as_str()), "{room} may not depend on {target}");
        }
    }
    assert_eq!(arrows("storage"), ["runtime"], "the test reads manifests rightly");
}

#[test]
fn unsafe_code_lives_in_five_files_and_says_why() {
    let allowed = [
        "runtime/src/ring.rs",
        "runtime/src/block.rs",
        "runtime/src/driver/fd.rs",
        "runtime/src/driver/write_ring.rs",
        "runtime/src/driver/memory.rs",
    ];
    for room in ["runtime", "storage", "consensus", "services", "sim", "bench"] {
        if room != "runtime" {
            let crate_root = if room == "bench" { "src/main.rs" } else { "src/lib.rs" };
            let text = fs::read_to_string(root().join(room).join(crate_root)).unwrap();
            assert!(text.contains("#![forbid(unsafe_code)]"), "{room}/{crate_root} forbids unsafe code");
        }
        for (path, text) in sources(room) {
            let uses = code(&text)
                .filter(|line| {
                    line.contains(concat!("unsafe", " {")) || line.contains(concat!("unsafe", " impl"))
                })
                .count();
            assert!(uses == 0 || allowed.contains(&path.as_str()), "{path} has unsafe code");
            assert!(text.matches("SAFETY:").count() >= uses, "{path}: an unsafe block without a SAFETY line");
        }
    }
}

/// What two threads can touch goes through one shim, so that loom sees it. Files that only tests have are their own affair.
#[test]
fn the_runtime_s_shared_state_goes_through_the_shim() {
    for (path, text) in sources("runtime/src") {
        let is_exempt =
            path.ends_with("/sync.rs") || path.ends_with("/testing.rs") || path.ends_with("/tests.rs");
        for word in [
            "sync::atomic",
            "sync::Mutex",
            "sync::RwLock",
            "sync::Condvar",
            "sync::{Arc, Mutex",
            "UnsafeCell<",
        ] {
            let mut lines = code(&text).filter(|line| line.contains(word) && !line.contains("crate::sync"));
            let found = lines.next().filter(|_| !is_exempt && path != "runtime/src/ring.rs");
            assert!(found.is_none(), "{path} reaches around the shim: {}", found.unwrap_or_default());
        }
    }
}

#[test]
fn the_brain_has_no_hands() {
    let hands =
        ["async ", ".await", "glommio", "std::fs", "std::net", "std::thread", "Instant::now", "SystemTime"];
    // What drives the machines, and the tools of the command line.
    let with_hands =
        ["services/src/hands.rs", "services/src/node.rs", "services/src/local.rs", "services/src/cli/"];
    let with_hands = [
        &with_hands[..],
        &["services/src/client/", "services/src/config.rs", "services/src/main.rs"],
        // Workers compute in bulk and decide nothing; what decides is beside, in `mapreduce/coordinator`.
        &["services/src/mapreduce/hands/"],
    ]
    .concat();
    for room in ["storage/src", "consensus/src", "services/src"] {
        for (path, text) in sources(room) {
            if with_hands.iter().any(|allowed| path.starts_with(allowed)) {
                continue;
            }
            for hand in hands {
                let found = code(&text).find(|line| line.contains(hand));
                assert!(found.is_none(), "{path} has a hand: {}", found.unwrap_or_default());
            }
        }
    }
}

#[test]
fn files_fit_a_head() {
    for room in ["runtime/src", "storage/src", "consensus/src", "services/src", "sim/src", "bench/src"] {
        for (path, text) in sources(room) {
            let lines =
                text.find("#[cfg(test)]\nmod tests {").map_or(&*text, |end| &text[..end]).lines().count();
            assert!(lines <= 600, "{path} has {lines} lines: what is it two of?");
        }
    }
}

#[test]
fn documents_link_to_what_exists() {
    let mut documents = Vec::new();
    files(&root(), ".md", &mut documents);
    assert!(documents.len() >= 8);
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.starts_with("http") {
                let path = document.parent().unwrap().join(target);
                assert!(path.exists(), "{} links to {target}", document.display());
            }
        }
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_path =
                quoted.ends_with(".rs") && quoted.contains('/') && !quoted.contains(['*', '<', ' ']);
            assert!(
                !is_path || root().join(quoted).exists() || quoted.split('/').count() < 3,
                "{} names {quoted}",
                document.display()
            );
        }
    }
}

#[test]
fn the_readme_names_the_commands_that_ci_runs() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(
        readme.contains("cargo test --profile sim --workspace\n")
            && ci.contains("cargo test --profile sim --workspace")
    );
    // There the program that the tests have built, or it would be built once more.
    assert!(readme.contains("--bin flotilla -- demo\n") && ci.contains("/flotilla\" demo"));
}
