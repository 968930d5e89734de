//! The jobs that come with the program, against the plainest way to the same output.

use crate::rig::{Rig, books};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty())
}

pub(crate) fn count(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for text in texts {
        for word in words(&text) {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    let mut lines: Vec<String> = counts.into_iter().map(|(word, n)| format!("{word}\t{n}")).collect();
    lines.sort();
    lines
}

fn texts(books: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(books).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned())
        })
        .collect()
}

#[test]
fn mr_01_h1_h3_words_of_the_books_are_counted_as_in_a_sequential_run() {
    let Some(books) = books() else { return };
    let pattern = format!("{}/pg-*.txt", books.display());
    let expected = count(texts(&books).into_values());
    for reducers in ["1", "3", "10"] {
        let rig = Rig::new();
        let arguments = ["--job", "wc", "--input", &pattern, "--workers", "3", "--reducers", reducers];
        let status = rig.run(&arguments);
        assert_eq!(rig.sorted(), expected);
        assert_eq!(status["records_out"], expected.len());
        assert!(rig.is_committed());
        let manifest: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(rig.output().join("_SUCCESS")).unwrap()).unwrap();
        for (place, file) in manifest["files"].as_array().unwrap().iter().enumerate() {
            let bytes = fs::read(rig.output().join(format!("part-{place:05}"))).unwrap();
            assert_eq!(file["bytes"], bytes.len());
            assert_eq!(file["crc32"], format!("{:08x}", crc32fast::hash(&bytes)));
        }
    }
}

#[test]
fn mr_02_the_books_are_indexed() {
    let Some(books) = books() else { return };
    let mut index: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in texts(&books) {
        for word in words(&text) {
            index.entry(word.to_owned()).or_default().insert(name.clone());
        }
    }
    let lines = index.into_iter().map(|(word, files)| {
        format!("{word}\t{} {}", files.len(), files.into_iter().collect::<Vec<_>>().join(","))
    });
    let mut expected: Vec<String> = lines.collect();
    expected.sort();
    let rig = Rig::new();
    rig.run(&["--job", "index", "--input", books.to_str().unwrap(), "--workers", "2", "--reducers", "5"]);
    assert_eq!(rig.sorted(), expected);
}

#[test]
fn lines_are_sorted_over_all_files_in_less_memory_than_they_take() {
    let rig = Rig::new();
    let text = rig.words(4, 3 << 20);
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    let mut expected = Vec::new();
    for line in lines {
        expected.extend_from_slice(line);
        expected.push(b'\n');
    }
    for memory in ["2", "64"] {
        let arguments =
            ["--job", "sort", "--memory-mib", memory, "--reducers", "4", "--workers", "2", "--overwrite"];
        let status = rig.run(&arguments);
        let output: Vec<u8> = rig
            .text()
            .split(|byte| *byte == b'\n')
            .filter(|it| !it.is_empty())
            .flat_map(|it| [it, b"\n"].concat())
            .collect();
        assert!(output == expected, "with {memory} MiB");
        assert_eq!(status["reduces"][1], 4);
    }
    let sizes: Vec<u64> = (0..4)
        .map(|place| fs::metadata(rig.output().join(format!("part-{place:05}"))).unwrap().len())
        .collect();
    assert!(sizes.iter().all(|size| *size > expected.len() as u64 / 8), "ranges are even: {sizes:?}");
}

#[test]
fn lines_that_match_come_in_the_order_of_the_input() {
    let rig = Rig::new();
    let text = String::from_utf8(rig.words(3, 700_000)).unwrap();
    let expected: Vec<&str> = text.lines().filter(|line| line.contains("wxxff w")).collect();
    assert!(expected.len() > 10);
    rig.run(&["--job", "grep", "--arg", "pattern=wxxff w"]);
    let output = String::from_utf8(rig.text()).unwrap();
    assert!(output.lines().eq(expected.iter().copied()));
    rig.run(&["--job", "grep", "--arg", "pattern=wx{2}f+ [w]", "--overwrite"]);
    assert!(String::from_utf8(rig.text()).unwrap().lines().eq(expected));
}

#[test]
fn distinct_words_are_counted() {
    let rig = Rig::new();
    let text = String::from_utf8(rig.words(3, 300_000)).unwrap();
    let expected: BTreeSet<&str> = words(&text).collect();
    let status = rig.run(&["--job", "distinct", "--reducers", "3"]);
    assert_eq!(status["counters"]["distinct"], expected.len());
    assert!(rig.sorted().iter().map(String::as_str).eq(expected));
}

#[test]
fn an_empty_input_has_an_empty_output() {
    let rig = Rig::new();
    rig.input("empty.txt", "");
    rig.run(&["--job", "wc"]);
    assert!(rig.is_committed() && rig.text().is_empty());
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let rig = Rig::new();
    rig.input("a.txt", "a\n");
    let refused: [(&[&str], &str); 6] = [
        (&["--job", "nonsense"], "no job is called"),
        (&["--job", "wc", "--arg", "x=1"], "takes no arguments"),
        (&["--job", "grep"], "--arg pattern=REGEX"),
        (&["--job", "wc", "--input", "/nonexistent/*"], "there is no such file"),
        (&["--job", "wc", "--arg", "x"], "NAME=VALUE"),
        (&["--job", "grep", "--arg", "pattern=("], "--arg pattern"),
    ];
    for (arguments, what) in refused {
        let ended = rig.start(arguments).end();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(what), "{arguments:?}: {ended:?}");
    }
    assert!(!rig.output().exists());
}
