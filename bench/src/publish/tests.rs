//! The page as a reader gets it: its parts, and how a browser shows it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::compare::result::tests::{cell, result};
use crate::compare::result::{Cell, Compared, Unit, Unmeasured};
use crate::target::process::find;

/// A grid of two rounds, a curve and a named load, on two systems.
fn sample() -> ResultFile {
    let mut cells: Vec<Cell> = Vec::new();
    for (target, factor) in [("flotilla", 4.0), ("etcd", 1.0)] {
        for (name, clients, reads) in
            [("set_c1", 1, 0), ("set_c64", 64, 0), ("get_c1", 1, 100), ("get_c64", 64, 100)]
        {
            let per_second = factor * 1000.0 * (clients as f64).sqrt();
            let mut made = cell(name, target, &[per_second, 1.02 * per_second]);
            made.load.clients = clients;
            made.load.reads_percent = reads;
            cells.push(made);
        }
        for share in [0.25, 0.5, 0.9] {
            let mut made = cell(&format!("set_at_{share}"), target, &[factor * 8000.0 * share]);
            made.set = "curves".to_owned();
            made.load.rate = Some(factor * 8000.0 * share);
            made.peak_share = Some(share);
            cells.push(made);
        }
        let mut made = cell("ycsb_a", target, &[factor * 5000.0]);
        made.set = "ycsb".to_owned();
        cells.push(made);
    }
    let mut made = result(cells);
    made.noise.marks = vec!["a <b>sign</b> & its \"mark\"".to_owned()];
    made
}

/// Two layers: a log whose loads have latencies, and jobs that were only timed.
fn layers() -> [ResultFile; 2] {
    let mut cells: Vec<Cell> = Vec::new();
    for (name, clients) in [("durable_1", 1), ("durable_64", 64), ("tcp_1", 1)] {
        for (target, factor) in [("flotilla", 3.0), ("raft-rs", 1.0)] {
            let per_second = factor * 4000.0 * f64::from(clients).sqrt();
            let rounds = [per_second, 1.2 * per_second, 0.9 * per_second];
            let mut made = cell(name, target, &rounds);
            made.set = name.split('_').next().unwrap().to_owned();
            (made.unit, made.load.clients) = (Unit::Commit, clients as usize);
            // As of a hundred thousand operations: the longest label is at the end.
            made.quantiles.push((0.99999, 20_000.0));
            cells.push(made);
        }
    }
    let mut raft = result(cells);
    raft.what = "raft".to_owned();
    raft.targets.dedup_by_key(|target| target.name == "raft-rs");
    raft.ratios.extend(Compared::new("", "tcp_1_p50_vs_bare", "", vec![1.5, 1.6]));
    let jobs = ["wc", "sort"].map(|job| {
        ["flotilla", "gnu", "duckdb", "the labs' design"].map(|target| {
            let mut made = cell(job, target, &[500.0, 620.0]);
            (made.set, made.unit) = (job.to_owned(), Unit::Megabyte);
            made.rounds.iter_mut().for_each(|round| (round.latency_us, round.drift) = (None, None));
            (made.median.latency_us, made.quantiles) = (None, Vec::new());
            made
        })
    });
    let mut mapreduce = result(jobs.into_iter().flatten().collect());
    mapreduce.what = "mapreduce".to_owned();
    mapreduce.targets.truncate(4);
    [raft, mapreduce]
}

#[test]
fn a_layers_section_has_its_plots_and_their_commands() {
    let [raft, mapreduce] = layers();
    let html = page::html(&[raft, mapreduce.clone()]).unwrap();
    for title in [
        "On disk: throughput by what is under way",
        "On disk: CPU time per commit by what is under way",
        "On disk, 64 in flight: throughput",
        "On disk, 64 in flight: latency by percentile",
        "On disk, 64 in flight: CPU time per commit",
        "Three processes over TCP, 1 in flight: memory",
        "Word count: throughput",
        "Sort: CPU time per MB",
        "Sort: bytes written for each byte read",
    ] {
        assert!(html.contains(&format!("<h3>{title}</h3>")), "{title}");
    }
    assert!(!html.contains("Sort: latency"), "what was only timed has no latencies");
    for told in
        ["flotilla-bench raft --only durable", "flotilla-bench mapreduce --only sort", "10.8k to 14.4k"]
    {
        assert!(html.contains(told), "{told}");
    }
    assert!(html.contains("tcp_1_p50_vs_bare") && html.contains("What was measured"));
    let told = markdown::text(&[mapreduce]);
    assert!(told.contains("| Word count | 560 MB/s | 560 MB/s |"), "{told}");
    assert!(told.contains("| Sort | gnu | 1.00 |"), "{told}");
}

#[test]
fn the_page_is_whole_and_fetches_nothing() {
    let [raft, mapreduce] = layers();
    let html = page::html(&[sample(), raft, mapreduce]).unwrap();
    let figures = html.matches("<figure>").count();
    assert!(figures >= 30, "{figures}");
    for part in ["<svg role=\"img\"", "Data and command", "<code>flotilla-bench "] {
        assert!(html.matches(part).count() >= figures, "every figure has {part}");
    }
    assert!(html.contains("a &lt;b&gt;sign&lt;/b&gt; &amp; its &quot;mark&quot;"), "what is told is escaped");
    for fetched in ["src=", "href=", "@import", "url(", "<script", "<link"] {
        assert!(!html.contains(fetched), "{fetched}");
    }
    assert!(html.contains("prefers-color-scheme: dark") && html.contains("name=\"viewport\""));
}

#[test]
fn of_several_runs_the_newest_counts() {
    let (mut older, newer) = (sample(), sample());
    older.unix_seconds -= 10;
    older.command = "the older one".to_owned();
    let mut other = sample();
    other.cells.retain(|cell| cell.set == "ycsb");
    let mut systems = sample();
    systems
        .cells
        .iter_mut()
        .filter(|cell| cell.target == "etcd")
        .for_each(|it| it.target = "naive".to_owned());
    let kept = newest(vec![older, newer, other, systems]);
    assert_eq!(kept.len(), 3, "other loads are another kind, and so are other systems");
    assert!(kept.iter().all(|result| result.command != "the older one"));
}

#[test]
fn tables_go_between_their_marks_and_nowhere_else() {
    let document = "before\n<!-- numbers: compare kv -->\nthe former table\n<!-- end of numbers -->\nafter\n";
    let (text, filled) = markdown::fill(document, &[sample()]);
    assert_eq!(filled, 1);
    assert!(text.starts_with("before\n<!-- numbers: compare kv -->\n**A noisy run"), "{text}");
    assert!(
        text.ends_with("<!-- end of numbers -->\nafter\n") && !text.contains("the former table"),
        "{text}"
    );
    let row = text.lines().find(|line| line.starts_with("| SET 64 B, 64 clients |")).unwrap();
    assert!(row.contains("32.3k/s, p50 1.98 ms, p99 5.94 ms") && row.contains("8.1k/s"), "{row}");
    let ratio = "| SET 64 B, 64 clients | etcd | 4.00 | 4.00 to 4.00, all of 2 rounds |";
    assert!(!text.contains(ratio) && !text.contains("open loop"), "a document gets the short form: {text}");
    let whole = markdown::text(&[sample()]);
    assert!(whole.contains(ratio) && whole.contains("open loop"), "{whole}");
    assert_eq!(markdown::fill(&text, &[sample()]).0, text, "again is the same");
    assert_eq!(markdown::fill("no marks", &[sample()]), ("no marks".to_owned(), 0));
}

#[test]
fn a_goal_that_could_not_be_measured_is_told_with_its_reason() {
    let mut nodes = result(Vec::new());
    nodes.what = "nodes".to_owned();
    nodes.ratios.extend(Compared::new("", "session_bytes", "", vec![150.0]));
    let (figure, goal, why) =
        ("set_2_cores_vs_1".to_owned(), ">= 1.7".to_owned(), "8 CPUs are needed".to_owned());
    nodes.unmeasured.push(Unmeasured { figure, goal, why });
    let (told, page) = (markdown::text(std::slice::from_ref(&nodes)), page::html(&[nodes.clone()]).unwrap());
    let row = "| set 2 cores vs 1 | - | not measured: 8 CPUs are needed | >= 1.7 | - |";
    assert!(told.starts_with("### Operating nodes\n") && told.contains(row), "{told}");
    assert!(page.contains("<td>set_2_cores_vs_1</td>") && page.contains("not measured: 8 CPUs"), "{page}");
    // It survives the file.
    let folder = tempfile::tempdir().unwrap();
    nodes.write(folder.path()).unwrap();
    assert_eq!(ResultFile::read_all(folder.path()).unwrap()[0].unmeasured.len(), 1);
}

#[test]
fn what_is_wrong_with_a_number_stands_beside_it() {
    let mut sample = sample();
    let cell = sample.cells.iter_mut().find(|cell| cell.name == "set_c64" && cell.target == "etcd").unwrap();
    cell.rounds[0].errors.insert("Unavailable".to_owned(), 7);
    cell.rounds[1].misses = 2;
    let (told, page) = (markdown::text(&[sample.clone()]), page::html(&[sample]).unwrap());
    assert!(told.contains("(7 failed; 2 found nothing)"), "{told}");
    assert!(page.contains("set_c64 on etcd (7 failed; 2 found nothing)"), "{page}");
}

/// Chromium, or `None` (said aloud) where it isn't installed and nobody insists.
fn chromium() -> Option<PathBuf> {
    let found =
        ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|name| find(Path::new(name)));
    let insisted = std::env::var_os("FLOTILLA_REQUIRE_CHROMIUM").is_some();
    assert!(found.is_some() || !insisted, "chromium is required: apt-get install chromium");
    found
}

/// Runs a page in a browser, and what the script at its end has left in the title.
fn title_after(chromium: &Path, folder: &Path, html: &str, script: &str) -> String {
    let page = html.replace("</body>", &format!("<script>{script}</script></body>"));
    let file = folder.join("page.html");
    std::fs::write(&file, page).unwrap();
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"])
        .arg("--virtual-time-budget=2000")
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let title = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    title
        .unwrap_or_else(|| panic!("no page came back: {}", String::from_utf8_lossy(&output.stderr)))
        .to_owned()
}

/// Whether anything sticks out of a phone, is empty, or has a text that another covers.
const LOOK: &str = r"
  const wrong = [];
  document.querySelectorAll('details').forEach(it => it.open = true);
  // As wide as a phone, whatever the least width of a headless window is.
  document.body.style.width = '360px';
  const right = document.body.getBoundingClientRect().right;
  for (const it of document.querySelectorAll('figure, svg, dl, h1, h2, h3, p, .scroll, .legend')) {
    const box = it.getBoundingClientRect();
    if (box.width === 0 || box.height === 0) wrong.push(it.tagName + ' is empty');
    if (box.right > right + 1) wrong.push(it.tagName + ' sticks out to ' + box.right);
  }
  let plots = 0;
  for (const svg of document.querySelectorAll('svg')) {
    plots += 1;
    const frame = svg.getBoundingClientRect();
    if (svg.querySelectorAll('polyline, rect, circle').length === 0) wrong.push('an empty plot');
    const boxes = [...svg.querySelectorAll('text')].map(it => [it.textContent.trim(), it.getBoundingClientRect()]);
    boxes.forEach(([text, box], at) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1) wrong.push(text + ' is cut off');
      if (box.height < 7) wrong.push(text + ' is too small: ' + box.height);
      for (const [other, its] of boxes.slice(at + 1)) {
        const apart = box.right <= its.left || its.right <= box.left || box.bottom <= its.top || its.bottom <= box.top;
        if (!apart) wrong.push(text + ' and ' + other + ' overlap');
      }
    });
    for (const line of svg.querySelectorAll('polyline, rect')) {
      const style = getComputedStyle(line);
      if (line.getAttribute('stroke')?.startsWith('var') && !style.stroke.startsWith('rgb')) wrong.push('a line without a colour');
      if (line.getAttribute('fill')?.startsWith('var') && !style.fill.startsWith('rgb')) wrong.push('a bar without a colour');
    }
  }
  document.title = plots + ' plots: ' + (wrong.length ? [...new Set(wrong)].slice(0, 9).join('; ') : 'fine');
";

#[test]
fn a_browser_shows_it_on_a_phone() {
    let Some(chromium) = chromium() else {
        note("skipped: no chromium in PATH (apt-get install chromium)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let [raft, mapreduce] = layers();
    let html = page::html(&[sample(), raft, mapreduce]).unwrap();
    let plots = html.matches("<svg ").count();
    assert_eq!(title_after(&chromium, folder.path(), &html, LOOK), format!("{plots} plots: fine"));
    // And the look itself can see.
    let broken = html.replacen("<figure>", "<figure style=\"width:900px\">", 1);
    let seen = title_after(&chromium, folder.path(), &broken, LOOK);
    assert!(seen.contains("sticks out"), "{seen}");
}
