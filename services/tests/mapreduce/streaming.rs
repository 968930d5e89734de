//! Jobs in any language: commands as mappers, combiners and reducers.

use crate::jobs::count;
use crate::rig::Rig;
use std::fs;

const MAPPER: &str = "tr -cs A-Za-z '\\n' | sed 's/$/\\t1/'";
const SUM: &str = "awk -F '\\t' '{ n[$1] += $2 } END { for (w in n) print w \"\\t\" n[w] }'";

#[test]
fn pipes_count_words_with_a_combiner_and_without() {
    let rig = Rig::new();
    let expected = count([String::from_utf8(rig.words(3, 400_000)).unwrap()]);
    rig.run(&["--mapper", MAPPER, "--reducer", SUM, "--reducers", "3"]);
    assert_eq!(rig.sorted(), expected);
    let status =
        rig.run(&["--mapper", MAPPER, "--combiner", SUM, "--reducer", SUM, "--reducers", "3", "--overwrite"]);
    assert_eq!(rig.sorted(), expected);
    assert!(status["shuffle_bytes"].as_u64().unwrap() < 100_000, "{status}");
    // Spills go through the combiner too.
    rig.run(&["--mapper", MAPPER, "--combiner", SUM, "--reducer", SUM, "--memory-mib", "1", "--overwrite"]);
    assert_eq!(rig.sorted(), expected);
}

#[test]
fn reducers_get_sorted_lines_as_mappers_wrote_them() {
    let rig = Rig::new();
    rig.input("in.txt", "b\t2\na\nc\tx\ty\na\tz\n\nb\t1\n");
    rig.run(&["--mapper", "cat", "--reducer", "cat", "--reducers", "1"]);
    assert_eq!(rig.text(), b"\na\na\tz\nb\t2\nb\t1\nc\tx\ty\n");
}

#[test]
fn without_a_reducer_mappers_write_the_output() {
    let rig = Rig::new();
    rig.input("a.txt", "one\ntwo\n");
    rig.input("b.txt", "three");
    rig.run(&["--mapper", "tr a-z A-Z", "--reducer", "NONE", "--workers", "1"]);
    assert_eq!(rig.text(), b"ONE\nTWO\nTHREE\n");
}

#[test]
fn a_command_that_fails_is_a_failed_attempt_with_its_last_words() {
    let rig = Rig::new();
    rig.input("in.txt", "x\n");
    let ended = rig.start(&["--mapper", "cat; echo all is lost >&2; exit 3", "--reducer", "cat"]).end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("exit status: 3: all is lost"), "{ended:?}");
    assert!(ended.stderr.contains("failed 4 times"), "{ended:?}");
    let ended = rig.start(&["--mapper", "cat", "--reducer", "false", "--attempts", "2"]).end();
    assert!(ended.stderr.contains("reduce-00000 has failed 2 times"), "{ended:?}");
    // Once is no failure of the job.
    let once = rig.path("once");
    let mapper = format!("cat; mkdir {} && exit 1; exit 0", once.display());
    rig.run(&["--mapper", &mapper, "--reducer", "cat", "--no-backups"]);
    assert_eq!(rig.text(), b"x\n");
    assert!(once.exists());
}

#[test]
fn counters_files_and_variables_reach_the_commands() {
    let rig = Rig::new();
    rig.input("in.txt", "x\ny\n");
    let script = rig.path("prefix.sh");
    fs::write(&script, "sed \"s/^/$PREFIX/\"\necho reporter:counter:mine,lines,2 >&2\n").unwrap();
    let file = script.to_str().unwrap();
    let status = rig.run(&[
        "--mapper",
        "sh prefix.sh",
        "--reducer",
        "cat",
        "--file",
        file,
        "--env",
        "PREFIX=it-",
        "--reducers",
        "1",
    ]);
    assert_eq!(rig.text(), b"it-x\nit-y\n");
    assert_eq!(status["counters"]["mine.lines"], 2);
}

#[test]
fn a_mapper_may_stop_reading_early_and_one_may_write_much_before_it_reads() {
    let rig = Rig::new();
    rig.words(2, 2 << 20);
    rig.run(&["--mapper", "head -n 1 >/dev/null; echo ended", "--reducer", "sort -u", "--reducers", "1"]);
    assert_eq!(rig.text(), b"ended\n");
    let mapper = "yes 'a long line of output' | head -n 100000; cat > /dev/null";
    rig.run(&[
        "--mapper",
        mapper,
        "--reducer",
        "wc -l",
        "--reducers",
        "1",
        "--overwrite",
        "--workers",
        "1",
        "--memory-mib",
        "1",
    ]);
    assert_eq!(String::from_utf8(rig.text()).unwrap().trim().parse::<u64>().unwrap() % 100_000, 0);
}
