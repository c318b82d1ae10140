//! Takes the steps of a serving process after it has read its configuration; for `--check`.
//!
//! The process becomes mail_owner, enters queue_directory, looks for the queue, and gives up the system calls. It talks
//! to no daemon: the error of a connection attempt with the wrong socket type tells whether a daemon listens.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Uid, User, access, geteuid};

use crate::config::{Config, QueueMethod};
use crate::jail;
use crate::log;
use crate::options::Options;
use crate::peer;
use crate::queue::Method;
use crate::session::enter_queue_directory;
use crate::sys::inherit;

use super::report::{Report, place};

/// Warns if no daemon listens on the socket of the log.
fn check_log(report: &mut Report, config: &Config) {
    let (Ok(file), Ok(queue), Ok(service)) = (
        config.maillog_file(),
        config.queue_directory(),
        config.postlog_service_name(),
    ) else {
        return;
    };
    let socket = if file.as_os_str().is_empty() {
        "/dev/log".into()
    } else {
        queue.join("public").join(service)
    };
    let Err(error) = UnixDatagram::unbound().and_then(|probe| probe.connect(&socket)) else {
        return;
    };
    let why = log::error_text(&error);
    let advice = if file.as_os_str().is_empty() {
        "Log lines are lost. \"qmqpd_log_stderr = yes\" writes them to standard error."
    } else {
        "Log lines go to syslog while Postfix is stopped. \"qmqpd_log_stderr = yes\" writes them to standard error."
    };
    report.warning(
        &format!("the log is out of reach: {}: {why}", socket.display()),
        Some(advice),
    );
}

/// Takes the steps of a start, as far as the rights of this process allow.
pub fn run(report: &mut Report, config: &Config, options: &Options) {
    if matches!(config.qmqpd_log_stderr(), Ok(false)) {
        check_log(report, config);
    }
    report.line(&format!("The kernel has {}.", jail::walls()));
    let local_server = peer::has_local_server();
    if let Some(directory) = become_owner(report, config, options) {
        check_name_server(report, config, directory, local_server);
        check_queue(report, config, directory);
        check_kernel(report);
        check_sandbox(report, config);
    }
}

/// The working directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Outside,
    /// queue_directory, which a chroot has made the root.
    InQueue,
}

/// Becomes the user that a launcher makes the process, as far as its rights allow.
fn become_owner(report: &mut Report, config: &Config, options: &Options) -> Option<Where> {
    if !geteuid().is_root() {
        let user = user_name(geteuid());
        let rest = if config.mail_owner().is_ok_and(|owner| owner == user) {
            "which is mail_owner; what qmqpd can read if it is started as root was not checked."
        } else {
            "and not as mail_owner; what qmqpd can reach if it is started as root or as that user was not checked."
        };
        report.note(&format!(
            "You are not root: the queue and the files were checked as user {user}, {rest}"
        ));
        if inherit::is_in_group_of_root().unwrap_or(true) {
            report.warning(jail::GROUP_OF_ROOT, None);
        }
        if let Err(error) = jail::drop_capabilities() {
            report.error(&error.to_string(), None);
        }
        return Some(Where::Outside);
    }
    let (Ok(owner), Ok(queue)) = (config.mail_owner_ids(), config.queue_directory()) else {
        report.note(
            "The queue and the confinement were not checked, because mail_owner is not known.",
        );
        return None;
    };
    let root = options.chroot.then_some(queue.as_path());
    if root.is_some() && !enter_queue(report, config) {
        return None;
    }
    match jail::drop_privileges(&owner, root) {
        Ok(()) if root.is_some() => Some(Where::InQueue),
        Ok(()) => Some(Where::Outside),
        Err(error) => {
            report.error(&error.to_string(), None);
            None
        }
    }
}

fn user_name(uid: Uid) -> String {
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// Enters queue_directory: the sockets of the queue have relative names.
fn enter_queue(report: &mut Report, config: &Config) -> bool {
    let Ok(queue) = config.queue_directory() else {
        return false;
    };
    let Err(fatal) = enter_queue_directory(&queue) else {
        return true;
    };
    let place = place(config, "queue_directory");
    let user = user_name(geteuid());
    let advice =
        format!("queue_directory must exist, and user {user} must be allowed to enter it.");
    report.error(&format!("{place}: {fatal}"), Some(&advice));
    false
}

/// Whether there is a name server for clients' names. Checked with the rights and the root directory of a serving
/// process.
fn check_name_server(report: &mut Report, config: &Config, directory: Where, local: bool) {
    let (Ok(true), Some(why)) = (config.qmqpd_peername_lookup(), peer::no_server(local)) else {
        return;
    };
    let root = match (directory, config.queue_directory()) {
        (Where::InQueue, Ok(queue)) => queue.display().to_string(),
        (Where::InQueue | Where::Outside, _) => String::new(),
    };
    let text = format!(
        "there is no name server: {root}{why}, and no server listens on port 53 of 127.0.0.1"
    );
    let advice = "No client's name can be looked up, and a client that depends on its name is answered Z. \
                  Name a server in that file, or set qmqpd_peername_lookup = no: each client is \"unknown\" then.";
    report.warning(&text, Some(advice));
}

fn check_queue(report: &mut Report, config: &Config, directory: Where) {
    let (Ok(queue), true) = (
        config.queue_directory(),
        directory == Where::InQueue || enter_queue(report, config),
    ) else {
        return;
    };
    let user = user_name(geteuid());
    match config.qmqpd_queue_method() {
        Ok(QueueMethod::Cleanup) => check_cleanup(report, config, &queue, &user),
        Ok(QueueMethod::File) => {
            if check_incoming(report, &queue, &user) {
                check_rights(report, config);
            }
        }
        Ok(QueueMethod::Qmail(program)) => check_program(report, &program, &user),
        // The error in the queue method has been reported.
        Err(_) => {}
    }
}

/// Whether a queue file can be made. The queue manager accepts files of its own user only.
fn check_incoming(report: &mut Report, queue: &Path, user: &str) -> bool {
    let flags = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    let why = match fs::metadata("incoming") {
        Ok(directory) if directory.uid() != geteuid().as_raw() => {
            format!("belongs to user {}", user_name(directory.uid().into()))
        }
        Ok(_) => match access("incoming", flags) {
            Ok(()) => return true,
            Err(errno) => log::errno_text(errno),
        },
        Err(error) => log::error_text(&error),
    };
    let text = format!(
        "no queue file can be made: {}: {why}",
        queue.join("incoming").display()
    );
    let advice = format!("It must be a directory of user {user}, with all rights.");
    report.error(&text, Some(&advice));
    false
}

/// Whether other users than the owner could move queue files.
fn check_rights(report: &mut Report, config: &Config) {
    // An error in a parameter has been reported.
    let Ok(method) = Method::from_config(config) else {
        return;
    };
    let refused = "no queue file can be made";
    match method.faults() {
        Ok(faults) => {
            for (path, what, fix) in faults {
                let text = format!("{refused}: {}: {what}", path.display());
                report.error(&text, Some(&format!("{fix} mends it.")));
            }
        }
        Err(error) => report.error(
            &format!("{refused}: below incoming: {}", log::error_text(&error)),
            None,
        ),
    }
}

/// Whether the qmail-queue program can be run.
fn check_program(report: &mut Report, program: &Path, user: &str) {
    if let Err(errno) = access(program, AccessFlags::X_OK) {
        let text = format!("{}: {}", program.display(), log::errno_text(errno));
        let advice = format!("User {user} must be allowed to run it.");
        report.error(&text, Some(&advice));
    }
}

/// Whether a daemon listens on cleanup's socket, without a connection: cleanup would open a queue file for it. A
/// datagram socket fails with EPROTOTYPE if there is a listener and the permissions allow it, otherwise with another
/// error.
fn check_cleanup(report: &mut Report, config: &Config, queue: &Path, user: &str) {
    let Ok(service) = config.cleanup_service_name() else {
        return;
    };
    let socket = Path::new("public").join(service);
    let probed = UnixDatagram::unbound().and_then(|probe| probe.connect(&socket));
    let Err(error) = probed else {
        return;
    };
    if error.raw_os_error() == Some(Errno::EPROTOTYPE as i32) {
        return;
    }
    let advice = if error.kind() == ErrorKind::PermissionDenied {
        format!("User {user} must be mail_owner, or in the group of that directory (setgid_group).")
    } else if error.kind() == ErrorKind::ConnectionRefused {
        "Start Postfix: its socket exists, and no process listens on it.".to_owned()
    } else {
        "Start Postfix (postfix start); its master makes the socket.".to_owned()
    };
    let (socket, why) = (queue.join(socket), log::error_text(&error));
    let text = format!("cleanup is out of reach: {}: {why}", socket.display());
    report.error(&text, Some(&advice));
}

/// Notes what the kernel lacks and the program does not need.
fn check_kernel(report: &mut Report) {
    if !inherit::has_close_range() {
        report.note(&format!(
            "The kernel has no close_range(2), which came with Linux 5.9: descriptors that a launcher leaves open are \
             closed one by one, up to the limit of open files, and at most {}.",
            inherit::CLOSE_EACH_LIMIT
        ));
    }
}

/// Called last: afterwards no file can be opened.
fn check_sandbox(report: &mut Report, config: &Config) {
    if !matches!(config.qmqpd_sandbox(), Ok(true)) {
        return;
    }
    if !jail::SUPPORTED {
        let advice = "qmqpd_sandbox = no ends this warning.";
        return report.warning(
            "there is no filter of system calls for this architecture: sessions are not confined",
            Some(advice),
        );
    }
    if let Err(error) = jail::confine(&[]) {
        let advice = "The kernel, or the container around the process, allows no seccomp filter; qmqpd refuses to serve. \
                      Allow it, or set qmqpd_sandbox = no.";
        report.error(&error.to_string(), Some(advice));
    }
}
