//! A disk with a write cache, of which a copy can be taken at any moment: as it would be after a power cut.
//!
//! It is a file that this process serves through /dev/fuse, and a loop device makes a disk of it. What is written stays in
//! the cache until it is flushed, by fsync of that file, which is what a loop device makes of a flush. A copy is made
//! between two requests, and so is never torn. Authority: fuse(4), and linux/fuse.h for the numbers.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const BLOCK: usize = 4096;

type Blocks = HashMap<u64, Arc<[u8; BLOCK]>>;

/// What is on a disk. A block that is not here is zero.
#[derive(Clone, Default)]
pub struct Content {
    /// What has been flushed.
    durable: Blocks,
    /// What has been written since then.
    cache: Blocks,
}

/// What of a disk is left after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    Kept,
    Lost,
}

impl Content {
    /// Takes in the image of a new file system.
    pub fn of_image(path: &Path) -> Content {
        let mut content = Content::default();
        let mut file = File::open(path).unwrap();
        for number in 0.. {
            let mut block = [0; BLOCK];
            if file.read_exact(&mut block).is_err() {
                break;
            }
            if block != [0; BLOCK] {
                content.durable.insert(number, Arc::new(block));
            }
        }
        content
    }

    /// Writes an image of what is left.
    pub fn write_image(&self, path: &Path, size: u64, cache: Cache) {
        let file = File::create(path).unwrap();
        file.set_len(size).unwrap();
        let put = |blocks: &Blocks| {
            for (number, block) in blocks {
                let at = number * BLOCK as u64;
                file.write_all_at(block.as_slice(), at).unwrap();
            }
        };
        put(&self.durable);
        if cache == Cache::Kept {
            put(&self.cache);
        }
    }

    fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        each_block(offset, length, |number, from, to| {
            let block = self.cache.get(&number).or(self.durable.get(&number));
            let zero = [0; BLOCK];
            bytes.extend_from_slice(&block.map_or(&zero, |block| &**block)[from..to]);
        });
        bytes
    }

    fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        each_block(offset, bytes.len(), |number, from, to| {
            let before = self.cache.get(&number).or(self.durable.get(&number));
            let mut block = before.map_or([0; BLOCK], |block| **block);
            let (piece, rest) = bytes.split_at(to - from);
            block[from..to].copy_from_slice(piece);
            bytes = rest;
            self.cache.insert(number, Arc::new(block));
        });
    }

    fn flush(&mut self) {
        self.durable.extend(self.cache.drain());
    }
}

/// The number of each block, and which part of it.
fn each_block(offset: u64, length: usize, mut part: impl FnMut(u64, usize, usize)) {
    let (mut at, end) = (offset, offset + length as u64);
    while at < end {
        let number = at / BLOCK as u64;
        let from = usize::try_from(at % BLOCK as u64).unwrap();
        let to = usize::try_from(end - at).map_or(BLOCK, |left| BLOCK.min(from + left));
        part(number, from, to);
        at += (to - from) as u64;
    }
}

/// A disk in use.
pub struct Disk {
    content: Arc<Mutex<Content>>,
    server: JoinHandle<()>,
}

impl Disk {
    /// Has a disk of `size` bytes appear as the file `path`, which is there.
    pub fn attach(content: Content, size: u64, path: &Path) -> Disk {
        let mut device = File::options();
        let device = device.read(true).write(true).open("/dev/fuse").unwrap();
        let content = Arc::new(Mutex::new(content));
        let options = "fd=0,rootmode=100600,user_id=0,group_id=0";
        let mut mount = Command::new("mount");
        mount
            .args(["-i", "-t", "fuse", "-o", options, "disk"])
            .arg(path);
        mount.stdin(Stdio::from(device.try_clone().unwrap()));
        let served = Arc::clone(&content);
        let server = thread::spawn(move || serve(device, size, &served));
        let status = mount.status().unwrap();
        assert!(status.success(), "mount {}: {status}", path.display());
        Disk { content, server }
    }

    /// What is on the disk at this moment.
    pub fn content(&self) -> Content {
        self.content.lock().unwrap().clone()
    }

    /// Waits for the end of a disk that has been unmounted.
    pub fn detached(self) {
        self.server.join().unwrap();
    }
}

/// Numbers of linux/fuse.h.
mod operation {
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
}

/// fuse_in_header, and fuse_read_in and fuse_write_in before what is written.
const HEADER: usize = 40;
const ARGUMENTS: usize = 40;

/// The longest write, and room for it with its headers.
const MAX_WRITE: u32 = 128 * 1024;
const REQUEST: usize = 256 * 1024;

/// FOPEN_DIRECT_IO: the kernel keeps no copy of the file.
const DIRECT_IO: u32 = 1;

/// Answers the kernel until the file is unmounted.
fn serve(mut device: File, size: u64, content: &Mutex<Content>) {
    let mut request = vec![0; REQUEST];
    loop {
        let length = match device.read(&mut request) {
            Ok(length) => length,
            // The kernel has taken a request back.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Not mounted yet.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            // Unmounted.
            Err(_) => return,
        };
        let request = &request[..length];
        let answer = answer(request, size, &mut content.lock().unwrap());
        let Some(answer) = answer else {
            continue;
        };
        let (error, answer) = match answer {
            Ok(answer) => (0, answer),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut reply = Vec::with_capacity(16 + answer.len());
        let total = u32::try_from(16 + answer.len()).unwrap();
        reply.extend(total.to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        reply.extend(&request[8..16]); // which request
        reply.extend(answer);
        // A request that was taken back wants no answer any more.
        drop(device.write(&reply));
    }
}

/// The answer to a request, an error, or nothing where the kernel wants none.
fn answer(request: &[u8], size: u64, content: &mut Content) -> Option<Result<Vec<u8>, i32>> {
    let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap());
    Some(Ok(match word(4) {
        operation::FORGET | operation::BATCH_FORGET | operation::INTERRUPT => return None,
        operation::INIT => init(),
        operation::GETATTR => attributes(size),
        operation::OPEN => words(&[0, 0, DIRECT_IO, 0]),
        operation::READ => {
            let (offset, length) = (long(HEADER + 8), u64::from(word(HEADER + 16)));
            let length = length.min(size.saturating_sub(offset));
            content.read(offset, usize::try_from(length).unwrap())
        }
        operation::WRITE => {
            let data = &request[HEADER + ARGUMENTS..];
            content.write(long(HEADER + 8), data);
            words(&[u32::try_from(data.len()).unwrap(), 0])
        }
        operation::FSYNC => {
            content.flush();
            Vec::new()
        }
        operation::FLUSH | operation::RELEASE => Vec::new(),
        _ => return Some(Err(libc::ENOSYS)),
    }))
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// fuse_init_out: version 7.31, no read-ahead, no flags, no limits of requests that wait.
fn init() -> Vec<u8> {
    words(&[7, 31, 0, 0, 0, MAX_WRITE, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// fuse_attr_out: a file with mode 0600, for a long time.
fn attributes(size: u64) -> Vec<u8> {
    let long = |number: u64| number.to_ne_bytes();
    let mut out = Vec::new();
    out.extend(long(1_000_000));
    out.extend(long(0));
    for number in [1, size, size / 512, 0, 0, 0] {
        out.extend(long(number));
    }
    out.extend(words(&[0, 0, 0, 0o100_600, 1, 0, 0, 0, 4096, 0]));
    out
}
