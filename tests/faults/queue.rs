//! Whether the message of a session is in the queue, by each of the ways to put it there.

use std::fs;

use crate::harness::cleanup::Item;
use crate::harness::instance::Instance;
use crate::harness::queue_file::{below, records};
use crate::session::{HEADER, Method, RECIPIENTS, SENDER, Setting};

/// Whether the message is in the queue, and what else is there.
pub fn look(setting: &Setting, instance: &Instance, items: &[Item]) -> (bool, Vec<String>) {
    match setting.method {
        Method::Cleanup => {
            let records: Vec<(u8, &[u8])> = items
                .iter()
                .filter_map(|item| match item {
                    Item::Record(kind, data) => Some((*kind, data.as_slice())),
                    Item::Flags(_) | Item::Garbage(_) | Item::Eof => None,
                })
                .collect();
            (is_whole(setting, &records), Vec::new())
        }
        Method::File => queue_files(setting, instance),
        Method::Qmail => {
            let read = |name: &str| fs::read(instance.dir.join("out").join(name));
            let recipients = RECIPIENTS.map(|recipient| format!("T{recipient}\0"));
            let envelope = format!("F{SENDER}\0{}\0", recipients.concat());
            let queued = read("done").is_ok()
                && read("message").is_ok_and(|message| message.ends_with(&setting.content))
                && read("envelope").is_ok_and(|found| found == envelope.as_bytes());
            (queued, Vec::new())
        }
    }
}

fn queue_files(setting: &Setting, instance: &Instance) -> (bool, Vec<String>) {
    let mut queued = false;
    let mut left = Vec::new();
    for (path, mode, content) in below(&instance.queue_directory().join("incoming")) {
        // What breaks off is no row of records.
        let complete = content.ends_with(b"E\0");
        let records = if complete {
            records(&content)
        } else {
            Vec::new()
        };
        let records: Vec<(u8, &[u8])> = records
            .iter()
            .map(|(kind, data)| (u8::try_from(*kind).unwrap(), data.as_slice()))
            .collect();
        let whole = !content.starts_with(b"C\x5f              0") && is_whole(setting, &records);
        if mode == 0o700 && whole && !queued {
            queued = true;
        } else {
            let name = path.file_name().unwrap().to_string_lossy();
            left.push(format!("{name} mode {mode:o} whole {whole}"));
        }
    }
    (queued, left)
}

/// Sender, recipients and content are there, and the end.
fn is_whole(setting: &Setting, records: &[(u8, &[u8])]) -> bool {
    let of_kind = |wanted: u8| {
        let records = records.iter().filter(move |(kind, _)| *kind == wanted);
        records.map(|(_, data)| *data)
    };
    let recipients = RECIPIENTS.map(str::as_bytes);
    let lines = of_kind(b'N').map(|line| [line, b"\n"].concat());
    let content: Vec<u8> = lines.flatten().collect();
    // A queue file has headers of the queue between those of the message and its body.
    let (header, body) = setting.content.split_at(HEADER.len());
    of_kind(b'S').eq([SENDER.as_bytes()])
        && of_kind(b'R').eq(recipients)
        && content
            .windows(header.len() - 1)
            .any(|part| part == &header[..header.len() - 1])
        && content.ends_with(body)
        && records.last().is_some_and(|(kind, _)| *kind == b'E')
}
