//! What systemd is told, by a socket that stands for it.

use super::common::{PATIENCE, program, start};
use super::http::{get, on_path, until};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Stops one thread of a process, as nothing but a debugger can, until its standard input ends.
const STOP_A_THREAD: &str = r#"
import ctypes, os, sys
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
thread, seize, interrupt, wait_for_threads = int(sys.argv[1]), 0x4206, 0x4207, 0x40000000
for request in (seize, interrupt):
    if ptrace(request, thread, None, None) != 0:
        sys.exit("ptrace: " + os.strerror(ctypes.get_errno()))
os.waitpid(thread, wait_for_threads)
print("stopped", flush=True)
sys.stdin.read()
"#;

/// A node under a supervisor that wants to hear of it every `watchdog`.
fn supervised(config: &Path, socket: &Path, watchdog: Duration) -> Child {
    let mut command = Command::new("sh");
    // systemd names the process that is to tell.
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" serve --die-with-parent --config \"$1\""]);
    command.arg(program()).arg(config).env("NOTIFY_SOCKET", socket);
    command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn next(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let length = socket.recv(&mut bytes).expect("something is said within the limit");
    String::from_utf8(bytes[..length].to_vec()).unwrap().trim().to_owned()
}

/// The thread of core 1: the first that has the name of the second executor. Its helpers, which have it too, come later.
fn thread_of_core_1(process: u32) -> u32 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let found = tasks
        .map(|task| task.unwrap())
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).unwrap().trim() == "flotilla-core-2")
        .map(|task| task.file_name().to_str().unwrap().parse::<u32>().unwrap());
    found.min().expect("there are two cores")
}

#[test]
fn systemd_hears_of_a_node_only_while_every_core_turns() {
    let mut cluster = start(|options| (options.nodes, options.cores) = (1, 2));
    assert!(cluster.nodes.stop(1, PATIENCE));
    let path = cluster.folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut node = supervised(cluster.nodes.config(1), &path, Duration::from_secs(2));
    let mut words = BufReader::new(node.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(next(&socket), "READY=1");
    assert_eq!([next(&socket), next(&socket)], ["WATCHDOG=1", "WATCHDOG=1"]);

    if let Some(python) = on_path("python3") {
        let mut command = Command::new(python);
        command.args(["-c", STOP_A_THREAD]).arg(thread_of_core_1(node.id()).to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut debugger = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(debugger.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.trim() == "stopped" {
            let said = words.find(|line| line.contains("haven't turned")).expect("the log says so");
            assert!(said.contains("stuck=[1]") && said.contains("systemd isn't told"), "{said}");
            socket.set_nonblocking(true).unwrap();
            // What was said before that is read; from then on nothing is.
            while socket.recv(&mut [0; 256]).is_ok() {}
            let answer = until(|| get(cluster.nodes.admin(1), "/healthz"), |it| it.status == 503);
            assert_eq!(answer.text, "core 1 didn't answer in time\n");
            let said = socket.recv(&mut [0; 256]);
            assert!(said.is_err(), "systemd is told that a node is alive whose core stands still");
            socket.set_nonblocking(false).unwrap();
            // The debugger lets go when it ends.
            drop(debugger.stdin.take());
            assert!(debugger.wait().unwrap().success());
            assert!(words.any(|line| line.contains("all cores turn again")));
            assert_eq!(next(&socket), "WATCHDOG=1");
        } else {
            let mut why = String::new();
            debugger.stderr.take().unwrap().read_to_string(&mut why).unwrap();
            debugger.wait().unwrap();
            eprintln!("skipped: no thread can be stopped here: {}", why.trim());
        }
    }

    let process = rustix::process::Pid::from_child(&node);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let said = std::iter::repeat_with(|| next(&socket)).find(|said| said != "WATCHDOG=1");
    assert_eq!(said.as_deref(), Some("STOPPING=1"));
    // What it logs is read to its end, or it would wait for that.
    drop(words.last());
    assert!(node.wait().unwrap().success());
}
