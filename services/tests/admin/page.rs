//! The status page, in a browser.

use super::common::{output, start};
use super::http::on_path;
use std::process::Command;

#[test]
fn a_browser_shows_the_page() {
    let Some(chromium) = on_path("chromium") else { return };
    let cluster = start(|options| (options.groups, options.shards) = (2, 16));
    cluster.set("key", "value");
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(chromium);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    let dom = output(command.arg(format!("http://{}/", cluster.nodes.admin(2))));
    for part in
        ["data-shown=\"yes\"", "<title>node 2 of local</title>", "Node 2 of local", ">ready<", "16 shards"]
    {
        assert!(dom.contains(part), "no {part} in {dom}");
    }
    assert_eq!(dom.matches("class=\"shard\"").count(), 16);
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/page.html")).unwrap();
    assert!(
        !text.contains("http:")
            || text.matches("http:").count() == text.matches("http://www.w3.org/").count()
    );
    assert!(!text.contains("https:") && !text.contains("src="), "it fetches nothing from elsewhere");
}
