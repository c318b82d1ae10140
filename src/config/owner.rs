//! The account of mail_owner: the user that a process becomes, and the owner of the queue.
//!
//! Follows `tests/spec/main-cf.md`, section 6.5. Becoming that user is left to `jail`.

use std::ffi::CString;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgrouplist};

use super::{Config, Error};
use crate::log;
use crate::sys::child::bounded_child;

/// The limit of [`Config::mail_owner_ids_apart`] for the name service.
const LOOKUP_LIMIT: Duration = Duration::from_secs(60);

/// An account without privileges that owns the mail queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
    /// All groups of the account, `gid` included.
    pub groups: Vec<Gid>,
}

impl Config {
    /// Looks mail_owner up in the accounts of this machine.
    ///
    /// Unlike Postfix, this does not search all accounts for another one with the same user id, which can take longer
    /// than the rest of a session; `--check` does it (`tests/spec/differences.md`, 28).
    pub fn mail_owner_ids(&self) -> Result<Owner, Error> {
        let name = self.mail_owner()?;
        let found = look_up(&name).map_err(io::Error::from);
        self.fit_owner(name, found)
    }

    /// The same as [`Config::mail_owner_ids`], in a child, so that the libraries of the name service are not loaded
    /// into this process and copied at each fork.
    pub fn mail_owner_ids_apart(&self) -> Result<Owner, Error> {
        let name = self.mail_owner()?;
        let found = match bounded_child(LOOKUP_LIMIT, || encode(look_up(&name))) {
            Ok(Some(answer)) => decode(&answer).map_err(io::Error::from),
            Ok(None) => Err(Errno::ETIMEDOUT.into()),
            Err(error) => Err(error),
        };
        self.fit_owner(name, found)
    }

    fn fit_owner(&self, name: String, found: io::Result<Option<Ids>>) -> Result<Owner, Error> {
        let unfit = |what: String| {
            self.in_file(format_args!("parameter mail_owner: {what}"))
                .about("mail_owner")
        };
        let found = found.map_err(|error| {
            let why = log::error_text(&error);
            unfit(format!("user {name} cannot be looked up: {why}"))
        })?;
        let problem = match found {
            None => format!("unknown user name value: {name}"),
            Some((uid, ..)) if uid.is_root() => format!("user {name} has privileged user ID"),
            Some((_, gid, _)) if gid.as_raw() == 0 => {
                format!("user {name} has privileged group ID")
            }
            Some((uid, gid, groups)) => {
                return Ok(Owner {
                    name,
                    uid,
                    gid,
                    groups,
                });
            }
        };
        Err(unfit(problem))
    }
}

/// The ids of an account in the name service.
type Ids = (Uid, Gid, Vec<Gid>);

fn look_up(name: &str) -> nix::Result<Option<Ids>> {
    let Some(User { uid, gid, .. }) = User::from_name(name)? else {
        return Ok(None);
    };
    let name = CString::new(name).map_err(|_nul| Errno::EINVAL)?;
    Ok(Some((uid, gid, getgrouplist(&name, gid)?)))
}

/// The form for the pipe: the ids in decimal, nothing, or `!` and the number of an error.
fn encode(found: nix::Result<Option<Ids>>) -> Vec<u8> {
    match found {
        Ok(None) => String::new(),
        Ok(Some((uid, gid, groups))) => {
            let groups = groups.iter().map(|group| format!(" {group}"));
            format!("{uid} {gid}") + &groups.collect::<String>()
        }
        Err(errno) => format!("!{}", errno as i32),
    }
    .into_bytes()
}

fn decode(answer: &[u8]) -> nix::Result<Option<Ids>> {
    let text = std::str::from_utf8(answer).map_err(|_binary| Errno::EBADMSG)?;
    if let Some(number) = text.strip_prefix('!') {
        return Err(Errno::from_raw(number.parse().unwrap_or(0)));
    }
    let numbers: Result<Vec<u32>, _> = text.split_ascii_whitespace().map(str::parse).collect();
    match numbers.map_err(|_odd| Errno::EBADMSG)?.as_slice() {
        [] => Ok(None),
        [_] => Err(Errno::EBADMSG),
        [uid, gid, groups @ ..] => {
            let groups = groups.iter().copied().map(Gid::from_raw).collect();
            Ok(Some((Uid::from_raw(*uid), Gid::from_raw(*gid), groups)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_has_found_comes_back_whole() {
        let ids = (Uid::from_raw(102), Gid::from_raw(105));
        let groups = vec![ids.1, Gid::from_raw(u32::MAX)];
        for found in [
            Ok(None),
            Ok(Some((ids.0, ids.1, Vec::new()))),
            Ok(Some((ids.0, ids.1, groups))),
            Err(Errno::EMFILE),
        ] {
            assert_eq!(decode(&encode(found.clone())), found);
        }
        for odd in [&b"102"[..], b"x", b"\xff", b"-1 2"] {
            assert_eq!(decode(odd), Err(Errno::EBADMSG));
        }
    }
}
