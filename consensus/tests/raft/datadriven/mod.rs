//! Reads cases as cockroachdb/datadriven writes them: a command with arguments, lines of input, `----`, what must come out.

use std::path::{Path, PathBuf};

/// One case of a file.
pub(crate) struct Case {
    pub(crate) command: String,
    /// `key=(a,b)` or `key=a`, in the order given.
    pub(crate) args: Vec<(String, Vec<String>)>,
    pub(crate) input: String,
    pub(crate) expected: String,
    /// File and line, for the one who reads that it failed.
    pub(crate) at: String,
}

/// The folder of the acceptance data, or `None` with a line that says so.
pub(crate) fn folder(of: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let shared = match std::env::var_os("FLOTILLA_ACCEPTANCE") {
        Some(folder) => PathBuf::from(folder),
        None => root.join("../shared/acceptance"),
    };
    let folder = shared.join("etcd-raft").join(of).join("testdata");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: etcd's cases aren't in {} (FLOTILLA_ACCEPTANCE says where)", folder.display());
    None
}

/// The files of a folder by name, each with its cases.
pub(crate) fn read(folder: &Path) -> Vec<(String, Vec<Case>)> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|it| it == "txt")).collect();
    files.sort();
    let named = files.into_iter().map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let cases = parse(&name, &std::fs::read_to_string(&path).unwrap());
        (name, cases)
    });
    named.collect()
}

fn parse(name: &str, text: &str) -> Vec<Case> {
    let mut lines = text.lines().enumerate();
    let mut cases = Vec::new();
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (command, args) = directive(line);
        let block = |end: &mut dyn FnMut(&str) -> bool, lines: &mut dyn Iterator<Item = (usize, &str)>| {
            let mut block = String::new();
            for (_, line) in lines {
                if end(line) {
                    break;
                }
                block.push_str(line);
                block.push('\n');
            }
            block
        };
        let input = block(&mut |line| line == "----", &mut lines);
        let expected = block(&mut |line| line.trim().is_empty(), &mut lines);
        cases.push(Case { command, args, input, expected, at: format!("{name}:{}", number + 1) });
    }
    cases
}

fn directive(line: &str) -> (String, Vec<(String, Vec<String>)>) {
    let (command, mut rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut args = Vec::new();
    while let Some((key, value)) = rest.trim_start().split_once('=') {
        let list;
        (list, rest) = match value.strip_prefix('(') {
            Some(open) => open.split_once(')').unwrap(),
            None => value.split_once(' ').unwrap_or((value, "")),
        };
        let values = list.split(',').map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        args.push((key.trim().to_owned(), values.collect()));
    }
    (command.to_owned(), args)
}
