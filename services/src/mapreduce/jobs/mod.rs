//! The jobs that come with the program.

mod distinct;
mod grep;
mod inverted_index;
mod sort;
mod word_count;

use super::job::{JobArgs, Registry};

/// Puts them all into a registry.
pub(super) fn register(registry: &mut Registry) {
    registry.add("wc", "counts words", |args| {
        known(args, &[])?;
        Ok(Box::new(word_count::WordCount))
    });
    registry.add("index", "the files that each word is in", |args| {
        known(args, &[])?;
        Ok(Box::new(inverted_index::InvertedIndex))
    });
    registry.add("grep", "lines that match: --arg pattern=REGEX", |args| {
        known(args, &["pattern"])?;
        let pattern = args.get("pattern").ok_or("say which lines: --arg pattern=REGEX")?;
        Ok(Box::new(grep::Grep::new(pattern)?))
    });
    registry.add("sort", "sorts lines by their bytes; the output files in their order are sorted", |args| {
        known(args, &[])?;
        Ok(Box::new(sort::Sort))
    });
    registry.add(
        "distinct",
        "each word once; the counter `distinct` says how many (--arg of=lines)",
        |args| {
            known(args, &["of"])?;
            match args.get("of").map_or("words", String::as_str) {
                "words" => Ok(Box::new(distinct::Distinct { of_lines: false })),
                "lines" => Ok(Box::new(distinct::Distinct { of_lines: true })),
                other => Err(format!("--arg of={other}: say words or lines")),
            }
        },
    );
}

/// An argument that nobody reads is a mistake.
fn known(args: &JobArgs, names: &[&str]) -> Result<(), String> {
    match args.keys().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) if names.is_empty() => Err(format!("takes no arguments, but got {name}")),
        Some(name) => Err(format!("has no argument {name}, only {}", names.join(", "))),
    }
}
