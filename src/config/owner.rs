//! The account that mail_owner names: the one to become, and the one that the queue belongs to.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, User};

use super::{Config, Error};
use crate::log;

/// An account without privileges that owns the mail queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub name: CString,
    pub uid: Uid,
    pub gid: Gid,
}

impl Config {
    /// Looks mail_owner up in the accounts of this machine; to be asked where the process is to become that user.
    ///
    /// Unlike Postfix, this does not walk through all accounts for another one with the same user id: that can take
    /// longer than everything else that a connection needs, and `--check` does it.
    pub fn mail_owner_ids(&self) -> Result<Owner, Error> {
        let name = self.mail_owner()?;
        let unfit = |what: String| self.in_file(format_args!("parameter mail_owner: {what}"));
        let user = User::from_name(&name).map_err(|errno| {
            let why = log::errno_text(errno);
            unfit(format!("user {name} cannot be looked up: {why}"))
        })?;
        let problem = match user {
            None => format!("unknown user name value: {name}"),
            Some(user) if user.uid.is_root() => format!("user {name} has privileged user ID"),
            Some(user) if user.gid.as_raw() == 0 => format!("user {name} has privileged group ID"),
            Some(User { uid, gid, .. }) => {
                let name = CString::new(name).unwrap_or_default();
                return Ok(Owner { name, uid, gid });
            }
        };
        Err(unfit(problem).into())
    }
}
