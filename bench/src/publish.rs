//! `flotilla-bench report`: result files become a page with plots, or the tables of the README.
//!
//! | module | what |
//! |---|---|
//! | [`page`] | the HTML file |
//! | [`figures`] | what is plotted, with the data and the command behind it |
//! | [`layers`] | the figures of a layer |
//! | [`plot`] | plots as SVG |
//! | [`markdown`] | the README's tables |
//!
//! The page is one file that fetches nothing and runs nothing: it can be opened from a disk, sent by mail, kept for years.

mod figures;
mod layers;
mod markdown;
mod page;
mod plot;

use std::path::PathBuf;

use clap::Args;

use crate::compare::args::What;
use crate::compare::result::ResultFile;
use crate::error::{BenchError, Result};
use crate::report::{self, note};

/// One HTML page, or the README's tables, of the results in a folder
///
/// The results are those that `flotilla-bench compare --out DIR` has written; of several on the same thing the newest counts.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArgs {
    /// The folder with the results
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Where the page goes [default: report.html in DIR]
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print Markdown tables instead
    #[arg(long, conflicts_with = "html")]
    markdown: bool,
    /// Put the Markdown tables into FILE, between its `<!-- numbers: compare kv -->` and `<!-- end of numbers -->` marks
    #[arg(long, value_name = "FILE", conflicts_with_all = ["html", "markdown"])]
    into: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &ReportArgs) -> Result<()> {
    let results = newest(ResultFile::read_all(&args.dir)?);
    if args.markdown {
        return report::print(&markdown::text(&results));
    }
    if let Some(file) = &args.into {
        let doing = |what: &str| format!("{what} {}", file.display());
        let text = std::fs::read_to_string(file).map_err(BenchError::io(doing("reading")))?;
        let (text, filled) = markdown::fill(&text, &results);
        if filled == 0 {
            return Err(BenchError::Usage(format!(
                "{} has no mark for these results, such as `{}`",
                file.display(),
                markdown::mark(results.first().map_or("kv", |result| &result.what))
            )));
        }
        std::fs::write(file, text).map_err(BenchError::io(doing("writing")))?;
        note(&format!("{filled} tables in {}", file.display()));
        return Ok(());
    }
    let path = args.html.clone().unwrap_or_else(|| args.dir.join("report.html"));
    let html = page::html(&results)?;
    std::fs::write(&path, html).map_err(BenchError::io(format!("writing {}", path.display())))?;
    note(&format!("wrote {}", path.display()));
    Ok(())
}

/// What was measured: runs of other loads, or on other systems, are of another kind.
fn kind(result: &ResultFile) -> (&str, Vec<(&str, &str, &str)>) {
    let cells = result.cells.iter().map(|cell| (&*cell.set, &*cell.name, &*cell.target));
    (&result.what, cells.collect())
}

/// The newest of each kind, key/value stores first.
fn newest(results: Vec<ResultFile>) -> Vec<ResultFile> {
    let mut kept: Vec<ResultFile> = Vec::new();
    for result in results {
        kept.retain(|older| kind(older) != kind(&result));
        kept.push(result);
    }
    kept.sort_by_key(|result| What::EACH.iter().position(|what| what.name() == result.what));
    kept
}

#[cfg(test)]
mod tests;
