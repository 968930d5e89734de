//! `docs/labs.md` says where each row is tested: made from the tests themselves, and held against the rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where tests (and, for rows that are measured, benchmarks) are.
const ROOMS: [&str; 7] = [
    "consensus/tests",
    "sim/tests",
    "services/tests",
    "runtime/tests",
    "consensus/src",
    "services/src/controller",
    "bench/src",
];
/// The rows' families, in the order of the table.
const FAMILIES: [&str; 12] = ["RAFT", "RSM", "NET", "COD", "SRV", "KV", "LCK", "CTL", "SKV", "S1", "CH", "H"];
/// What the table says before its rows.
const HEAD: &str = "| row | test | file |\n|---|---|---|\n";
/// The hazards that concern the controller, migration, Raft, its log, its snapshots, those who wait for it, and how a node ends.
const HAZARDS: [&str; 21] = [
    "H-6", "H-7", "H-8", "H-9", "H-10", "H-11", "H-12", "H-13", "H-14", "H-15", "H-16", "H-17", "H-18",
    "H-19", "H-20", "H-21", "H-22", "H-23", "H-24", "H-25", "H-26",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources(of: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The row that a word is the id of, if it is one: `RAFT-A1`, `RSM-01`, `H-6`.
fn row(word: &str) -> Option<String> {
    let (family, number) = word.split_once('-')?;
    let digits = match family {
        "RAFT" => number.strip_prefix(['A', 'B', 'C', 'D'])?,
        "KV" => number.strip_prefix(['A', 'B'])?,
        "SKV" => number.strip_prefix('C').unwrap_or(number),
        "CH" => number.strip_suffix(['a', 'b']).unwrap_or(number),
        _ => number,
    };
    let known = FAMILIES.contains(&family);
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (known && whole).then(|| word.to_owned())
}

fn rows_in_text(text: &str) -> BTreeSet<String> {
    text.split(|char: char| !char.is_ascii_alphanumeric() && char != '-').filter_map(row).collect()
}

/// The rows in a test's name: `..._raft_a1_b1`, `..._net_04_net_05`, `..._h25`.
fn rows_in_name(name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut family = String::new();
    for word in name.split('_') {
        let upper = word.to_uppercase();
        if FAMILIES.contains(&&*upper) && upper != "H" {
            family = upper;
        } else if let Some(row) = row(&format!("{family}-{}", if family == "CH" { word } else { &upper })) {
            found.insert(row);
        } else {
            found.extend(word.strip_prefix('h').and_then(|number| row(&format!("H-{number}"))));
        }
    }
    found
}

/// What a line of code gives a name to.
fn named(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let start = line.split("fn ").nth(1).unwrap_or(line);
    let end = start.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(start.len());
    (end > 0).then(|| &start[..end])
}

/// (row, test, file) of everything that carries a row's id in its name or its documentation.
fn carried() -> BTreeSet<(String, String, String)> {
    let mut found = BTreeSet::new();
    let mut paths = Vec::new();
    ROOMS.iter().for_each(|room| sources(&root().join(room), &mut paths));
    // This file talks of rows and tests none.
    for path in paths.into_iter().filter(|path| !path.ends_with(Path::new(file!()).file_name().unwrap())) {
        let file = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let mut told = BTreeSet::new();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line = line.trim_start();
            if let Some(text) = line.strip_prefix("///") {
                told.extend(rows_in_text(text));
            } else if !line.starts_with("#[")
                && let Some(name) = named(line)
            {
                let rows = std::mem::take(&mut told);
                let is_test = line.starts_with("fn ");
                let rows = rows.into_iter().chain(is_test.then(|| rows_in_name(name)).into_iter().flatten());
                found.extend(rows.map(|row| (row, name.to_owned(), file.clone())));
            }
        }
    }
    found
}

/// The rows in the order of the labs, hazards last.
fn order(row: &str) -> (usize, String, usize) {
    let (family, number) = row.split_once('-').unwrap();
    let place = FAMILIES.iter().position(|known| *known == family).unwrap();
    let letter: String = number.chars().filter(char::is_ascii_alphabetic).collect();
    (place, letter, number.trim_matches(char::is_alphabetic).parse().unwrap())
}

fn table() -> String {
    let mut rows: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (row, test, file) in carried() {
        let line = format!("| {row} | `{test}` | `{file}` |\n");
        rows.entry(order(&row)).or_default().push(line);
    }
    HEAD.to_owned() + &rows.into_values().flatten().collect::<String>()
}

#[test]
fn the_table_is_what_the_tests_say() {
    let path = root().join("docs/labs.md");
    let text = fs::read_to_string(&path).unwrap();
    let start = text.find(HEAD).expect("docs/labs.md has a table");
    let table = table();
    if text[start..] != table && std::env::var_os("FLOTILLA_WRITE_TABLE").is_some() {
        fs::write(&path, text[..start].to_owned() + &table).unwrap();
        return;
    }
    for (found, expected) in text[start..].lines().zip(table.lines()) {
        assert_eq!(found, expected, "run this test with FLOTILLA_WRITE_TABLE=1 to write docs/labs.md anew");
    }
    assert_eq!(text[start..].len(), table.len(), "docs/labs.md has other rows than the tests");
}

#[test]
fn every_row_and_every_hazard_has_a_test() {
    let here = root();
    let rows = here.ancestors().map(|folder| folder.join("shared/acceptance/labs.md"));
    let Some(rows) = rows.into_iter().find_map(|path| fs::read_to_string(path).ok()) else {
        eprintln!("skipped: there is no shared/acceptance/labs.md beside this repository or above it");
        return;
    };
    let listed = rows.lines().filter_map(|line| line.strip_prefix("| "));
    let mut wanted: BTreeSet<String> =
        listed.filter_map(|line| row(line.split([' ', '|']).next().unwrap_or_default())).collect();
    assert!(wanted.len() > 50, "only {} rows were found", wanted.len());
    wanted.extend(HAZARDS.map(str::to_owned));
    let tested: BTreeSet<String> = carried().into_iter().map(|(row, ..)| row).collect();
    let missing: Vec<&String> = wanted.difference(&tested).collect();
    assert!(missing.is_empty(), "nothing tests {missing:?}");
}

#[test]
fn ids_are_found_in_names_and_words() {
    let set = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(rows_in_name("a_b_raft_a1_b10"), set(&["RAFT-A1", "RAFT-B10"]));
    assert_eq!(rows_in_name("x_rsm_06_h25"), set(&["RSM-06", "H-25"]));
    assert_eq!(rows_in_name("x_skv_c1_s1_04_ch_2a"), set(&["SKV-C1", "S1-04", "CH-2a"]));
    assert_eq!(rows_in_name("half_of_the_net_is_there"), set(&[]));
    assert_eq!(rows_in_text(" NET-04, H-6: and RAFT-C4. RAFT-E1"), set(&["NET-04", "H-6", "RAFT-C4"]));
}
