//! Messages whose cleanup or whose file is in memory, for tests and fuzzing.
//!
//! The conversation and the file are left to `queue::cleanup` and `queue::file`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use super::file::{self, Incoming, Named};
use super::{Method, Origin, Queue, Unavailable, cleanup};

/// A message for a cleanup at the other end of `stream`.
pub fn cleanup<'a, S: Read + Write + 'a>(
    method: &'a Method,
    origin: &'a Origin<'a>,
    stream: S,
) -> Result<Box<dyn Queue + 'a>, Unavailable> {
    let Method::Cleanup(settings) = method else {
        return Err(Unavailable);
    };
    let flags = cleanup::flags(settings);
    Ok(Box::new(cleanup::begin_message(
        settings, origin, stream, flags,
    )))
}

/// A message for a queue file of at most `limit` bytes, without a name in `directory`.
pub fn file<'a>(
    method: &'a Method,
    origin: &'a Origin<'a>,
    (file, directory): (File, OwnedFd),
    limit: Option<u64>,
) -> Result<Box<dyn Queue + 'a>, Unavailable> {
    let Method::File(settings) = method else {
        return Err(Unavailable);
    };
    let named = Named {
        file: Incoming::made(file, directory, limit),
        queue_id: "4F1".to_owned(),
        created: origin.arrival,
    };
    Ok(Box::new(file::begin_message(settings, origin, named)))
}
