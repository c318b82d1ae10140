//! Checks the accounts that main.cf names, as Postfix's daemons do at each start; for `--check`.
//!
//! A serving process looks up mail_owner only if it needs it. Follows `tests/spec/main-cf.md`, section 6.5; where
//! versions of Postfix have different texts, these are those of 3.12.

use std::fmt;

use nix::unistd::{Gid, Group, Uid, User};

use crate::config::{Config, Error, Owner};

/// A parameter, and the error in its value.
type Problem = (&'static str, Error);

struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
}

struct Team {
    name: String,
    gid: Gid,
}

/// The errors in mail_owner, setgid_group and default_privs, alone and in combination.
pub fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let owner = kept(&mut problems, "mail_owner", sole_owner(config));
    let group = kept(&mut problems, "setgid_group", setgid_team(config));
    let privs = kept(&mut problems, "default_privs", default_account(config));
    if let (Some(privs), Some(owner)) = (&privs, &owner) {
        problems.extend(same_account(config, privs, owner));
    }
    if let (Some(privs), Some(group)) = (&privs, &group) {
        problems.extend(same_group(config, "default_privs", privs, group));
    }
    if let (Some(owner), Some(group)) = (&owner, &group) {
        problems.extend(same_group(config, "mail_owner", owner, group));
    }
    problems
}

/// mail_owner, if no earlier account has its user id: the queue would be open to that account too.
fn sole_owner(config: &Config) -> Result<Account, Error> {
    let Owner { name, uid, gid, .. } = config.mail_owner_ids()?;
    if let Ok(Some(other)) = User::from_uid(uid) {
        if other.name != name {
            return Err(unfit(
                config,
                format_args!(
                    "parameter mail_owner: user {name} has the same user ID {uid} as user {}",
                    other.name
                ),
            ));
        }
    }
    Ok(Account { name, uid, gid })
}

fn setgid_team(config: &Config) -> Result<Team, Error> {
    let name = config.setgid_group()?;
    let unfit = |problem: String| unfit(config, format_args!("parameter setgid_group: {problem}"));
    let Ok(Some(Group { gid, .. })) = Group::from_name(&name) else {
        return Err(unfit(format!("unknown group name: {name}")));
    };
    if gid.as_raw() == 0 {
        return Err(unfit(format!("group {name} has privileged group ID")));
    }
    match Group::from_gid(gid) {
        Ok(Some(other)) if other.name != name => Err(unfit(format!(
            "group {name} has the same group ID {gid} as group {}",
            other.name
        ))),
        Ok(_) | Err(_) => Ok(Team { name, gid }),
    }
}

fn default_account(config: &Config) -> Result<Account, Error> {
    let name = config.default_privs()?;
    let unfit = |problem: String| unfit(config, format_args!("parameter default_privs: {problem}"));
    match User::from_name(&name) {
        Ok(Some(user)) if user.uid.is_root() => {
            Err(unfit(format!("user {name} has privileged user ID")))
        }
        Ok(Some(user)) if user.gid.as_raw() == 0 => {
            Err(unfit(format!("user {name} has privileged group ID")))
        }
        Ok(Some(User { uid, gid, .. })) => Ok(Account { name, uid, gid }),
        Ok(None) | Err(_) => Err(unfit(format!("unknown user name value: {name}"))),
    }
}

fn same_account(config: &Config, privs: &Account, owner: &Account) -> Option<Problem> {
    let parameters = "parameters default_privs and mail_owner";
    let (a, b) = (&privs.name, &owner.name);
    let problem = if a == b {
        format!("{parameters} specify the same user {b}")
    } else if privs.uid == owner.uid {
        let uid = owner.uid;
        format!("{parameters}: users {a} and {b} have the same user ID: {uid}")
    } else if privs.gid == owner.gid {
        let gid = owner.gid;
        format!("{parameters}: users {a} and {b} have the same group ID: {gid}")
    } else {
        return None;
    };
    Some(("default_privs", unfit(config, format_args!("{problem}"))))
}

fn same_group(config: &Config, of: &'static str, user: &Account, group: &Team) -> Option<Problem> {
    if user.gid != group.gid {
        return None;
    }
    let problem = unfit(
        config,
        format_args!(
            "parameters {of} and setgid_group: user {} and group {} have the same group ID: {}",
            user.name, group.name, group.gid
        ),
    );
    Some(("setgid_group", problem))
}

fn unfit(config: &Config, problem: fmt::Arguments<'_>) -> Error {
    config.in_file(problem)
}

fn kept<T>(problems: &mut Vec<Problem>, name: &'static str, result: Result<T, Error>) -> Option<T> {
    result.map_err(|error| problems.push((name, error))).ok()
}

#[cfg(test)]
mod tests {
    use crate::config::tests::config;

    /// Users and groups that every Debian has: daemon is 1 and 1, the user nobody is in nogroup, mail is 8 and 8.
    fn problems(main_cf: &str) -> Vec<String> {
        let config = config(main_cf);
        let path = format!("file {}: ", config.main_cf());
        let problems = super::problems(&config);
        let shown = problems
            .iter()
            .map(|(_, error)| error.to_string().replace(&path, ""));
        shown.collect()
    }

    #[test]
    fn accounts_that_are_apart_are_in_order() {
        let fine = "mail_owner = daemon\nsetgid_group = mail\ndefault_privs = nobody\n";
        assert_eq!(problems(fine), [""; 0]);
    }

    #[test]
    fn each_account_is_checked_by_itself() {
        let unknown = "mail_owner = nosuch\nsetgid_group = nosuch\ndefault_privs = nosuch\n";
        assert_eq!(
            problems(unknown),
            [
                "parameter mail_owner: unknown user name value: nosuch",
                "parameter setgid_group: unknown group name: nosuch",
                "parameter default_privs: unknown user name value: nosuch",
            ]
        );
        let root = "mail_owner = root\nsetgid_group = root\ndefault_privs = root\n";
        assert_eq!(
            problems(root),
            [
                "parameter mail_owner: user root has privileged user ID",
                "parameter setgid_group: group root has privileged group ID",
                "parameter default_privs: user root has privileged user ID",
            ]
        );
    }

    #[test]
    fn accounts_that_are_one_another_are_named() {
        let same = "mail_owner = daemon\nsetgid_group = daemon\ndefault_privs = daemon\n";
        assert_eq!(
            problems(same),
            [
                "parameters default_privs and mail_owner specify the same user daemon",
                "parameters default_privs and setgid_group: user daemon and group daemon have the same group ID: 1",
                "parameters mail_owner and setgid_group: user daemon and group daemon have the same group ID: 1",
            ]
        );
    }
}
