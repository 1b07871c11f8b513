//! The built command: what it prints, how it ends, and with which exit code.

#![allow(clippy::unwrap_used, reason = "a test that meets what it does not expect should fail")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn portolan(folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for listener in ["amqp", "mqtt", "http"] {
        command.args(["--set", &format!("listeners.{listener}=127.0.0.1:0")]);
    }
    command
}

/// Runs it to its end: exit code, standard output, standard error.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Starts it and returns the ready line; nothing else comes on standard output before it.
fn ready(command: &mut Command) -> (Child, String) {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        let mut log = String::new();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        panic!("it did not become ready: {log}");
    }
    (child, line)
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn it_is_ready_and_ends_cleanly_on_either_signal() {
    for which in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().unwrap();
        let (mut child, line) = ready(&mut portolan(&folder));
        assert!(line.starts_with("portolan ready amqp=127.0.0.1:") && line.contains(" http=127.0.0.1:"), "{line}");
        signal(&child, which);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_port_in_use_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let setting = format!("listeners.amqp={}", taken.local_addr().unwrap());
    let (code, _, told) = run(portolan(&folder).args(["--set", &setting]));
    assert_eq!(code, Some(69));
    assert!(told.contains("listeners.amqp") && told.contains("another broker may be running"), "{told}");
}

#[test]
fn wrong_configuration_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("my.toml"), "[limits]\nframe_mx = 5\n").unwrap();
    for command in [vec!["serve"], vec!["config", "check"], vec!["config", "show"], vec![]] {
        let (code, out, told) = run(portolan(&folder).args(["--config", "my.toml"]).args(&command));
        assert_eq!((code, out.as_str()), (Some(78), ""), "{command:?}");
        assert_eq!(told, "portolan: my.toml:2: unknown key `limits.frame_mx`; did you mean `limits.frame_max`?\n");
    }
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("my.toml"), "[limits]\nqueues = 5\nexchanges = 5\n").unwrap();
    let mut command = portolan(&folder);
    command.env("PORTOLAN_CONFIG", "my.toml").env("PORTOLAN__LIMITS__EXCHANGES", "6").args(["config", "show"]);
    let (code, shown, _) = run(&mut command);
    assert_eq!(code, Some(0));
    let line = |key: &str| shown.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_owned();
    assert!(line("queues = 5").ends_with("# my.toml:2"), "{shown}");
    assert!(line("exchanges = 6").ends_with("# environment variable PORTOLAN__LIMITS__EXCHANGES"), "{shown}");
    assert!(line("amqp = ").ends_with("# --set listeners.amqp"), "{shown}");
    let (code, told, _) = run(command.args(["--set", "logging.format=json"]));
    assert_eq!(code, Some(0));
    assert!(told.contains("format = \"json\""), "{told}");
}

#[test]
fn usage_errors_have_their_own_code() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(portolan(&folder).arg("frob")).0, Some(2));
    assert_eq!(run(portolan(&folder).arg("--frob")).0, Some(2));
    let (code, version, _) = run(portolan(&folder).arg("--version"));
    assert_eq!((code, version), (Some(0), format!("portolan {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_password_is_hashed_and_the_hash_can_be_configured() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = portolan(&folder).arg("hash-password").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let hash = String::from_utf8(output.stdout).unwrap();
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    let users = format!("users=[{{ name = 'a', password_hash = '{}' }}]", hash.trim());
    let (code, told, _) = run(portolan(&folder).args(["--set", &users, "config", "check"]));
    assert_eq!(code, Some(0), "{told}");
}

#[test]
fn logs_are_json_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, _) = ready(portolan(&folder).args(["--set", "logging.format=json"]));
    signal(&child, Signal::TERM);
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    child.wait().unwrap();
    assert!(!log.is_empty());
    for line in log.lines() {
        assert!(line.starts_with('{') && line.ends_with('}') && line.contains("\"level\":"), "{line}");
    }
}
