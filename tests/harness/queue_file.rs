//! Messages sent to a server that may have a tracer around it, and the records of queue files.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::master::Master;
use super::patience::{PATIENCE, end_of};

/// Starts our program on one end of a socket pair, by way of `tracer` if that is not empty; the other end.
pub fn start(master: &Master, tracer: &[&str], options: &[&str]) -> (Child, UnixStream) {
    let (client, server) = UnixStream::pair().unwrap();
    let mut words: Vec<String> = tracer.iter().map(|&word| word.to_owned()).collect();
    words.push(master.dir.join("daemons/qmqpd").display().to_string());
    words.push("-S".to_owned());
    for option in options {
        words.extend(["-o".to_owned(), (*option).to_owned()]);
    }
    let stdout = server.try_clone().unwrap();
    let child = Command::new(&words[0])
        .args(&words[1..])
        .env("MAIL_CONFIG", master.dir.join("conf"))
        .env("TZ", "UTC0")
        .current_dir(master.dir.join("queue"))
        .stdin(OwnedFd::from(server))
        .stdout(OwnedFd::from(stdout))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, client)
}

/// Sends a whole request and ends; the reply, empty if there was none.
pub fn send(master: &Master, tracer: &[&str], options: &[&str], request: &[u8]) -> String {
    let (mut child, mut client) = start(master, tracer, options);
    // A server that was killed no longer listens; what it said before is what counts.
    drop(client.write_all(request));
    drop(client.shutdown(Shutdown::Write));
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reply = Vec::new();
    drop(client.read_to_end(&mut reply));
    end_of(&mut child);
    String::from_utf8_lossy(&reply).into_owned()
}

/// Every file below `incoming`, hash directories or not: name, mode and content.
pub fn files(master: &Master) -> Vec<(PathBuf, u32, Vec<u8>)> {
    below(&master.dir.join("queue/incoming"))
}

/// Every file below `directory`: name, mode and content.
pub fn below(directory: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt;

    let mut directories = vec![directory.to_path_buf()];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            // The queue manager may take a file away at any time.
            let Ok(kind) = fs::metadata(&path) else {
                continue;
            };
            if kind.is_dir() {
                directories.push(path);
            } else if let Ok(content) = fs::read(&path) {
                files.push((path, kind.permissions().mode() & 0o7777, content));
            }
        }
    }
    files
}

/// The content of the queue file of this id, which is then removed.
pub fn take(master: &Master, queue_id: &str) -> Vec<u8> {
    let mut found = files(master)
        .into_iter()
        .filter(|(path, ..)| path.file_name().unwrap().to_str() == Some(queue_id));
    let (path, mode, content) = found.next().unwrap();
    assert_eq!(mode, 0o700, "{}", path.display());
    fs::remove_file(path).unwrap();
    content
}

/// Type and data of each record.
pub fn records(file: &[u8]) -> Vec<(char, Vec<u8>)> {
    let mut records = Vec::new();
    let mut rest = file;
    while let Some((&kind, after)) = rest.split_first() {
        let digits = after.iter().take_while(|&&byte| byte >= 0x80).count() + 1;
        let length = after[..digits]
            .iter()
            .rev()
            .fold(0, |length, &byte| length << 7 | usize::from(byte & 0x7f));
        records.push((char::from(kind), after[digits..digits + length].to_vec()));
        rest = &after[digits + length..];
    }
    records
}
