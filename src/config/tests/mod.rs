//! Tests of the results of the room for a main.cf, in Postfix's words where it has them.
//!
//! They follow `tests/spec/main-cf.md`, sections 1 to 7.

mod expansion;
mod grammar;
mod manual;
mod postfix;
mod references;
mod values;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use super::{Config, Error, Names, Override, TABLE, position};

/// A configuration directory that goes away with the test.
pub struct Directory(PathBuf);

impl Directory {
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn main_cf(&self) -> PathBuf {
        self.0.join("main.cf")
    }

    pub fn load(&self, overrides: &[&str]) -> Result<Config, Error> {
        let overrides = overrides
            .iter()
            .map(|argument| Override::parse(argument.as_bytes()).unwrap());
        let names = Names {
            process: "qmqpd".to_owned(),
            service: "628".to_owned(),
        };
        Config::load(self.path(), overrides.collect(), names)
    }

    /// `text` with this directory's name replaced by `DIR`.
    fn anonymous(&self, text: &str) -> String {
        text.replace(&*self.0.to_string_lossy(), "DIR")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A directory with this main.cf, old enough to be read at once.
pub fn directory_with(main_cf: impl AsRef<[u8]>) -> Directory {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "qmqpd-config-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Relaxed)
    );
    let directory = Directory(std::env::temp_dir().join(name));
    fs::create_dir(directory.path()).unwrap();
    fs::write(directory.main_cf(), main_cf).unwrap();
    let file = File::options()
        .write(true)
        .open(directory.main_cf())
        .unwrap();
    let then = SystemTime::now() - Duration::from_secs(3600);
    file.set_modified(then).unwrap();
    directory
}

pub fn config(main_cf: &str) -> Config {
    directory_with(main_cf).load(&[]).unwrap()
}

/// The value of the parameter `name`, which need not have an effect.
fn value(config: &Config, name: &str) -> String {
    let value = config.value(position(name.as_bytes()).unwrap()).unwrap();
    String::from_utf8(value.into_owned()).unwrap()
}

/// The error of the parameter `name` in this main.cf, or nothing.
fn complaint(name: &str, main_cf: &str) -> String {
    complaints(name, main_cf).pop().unwrap_or_default()
}

/// The same, with the warnings before it.
fn complaints(name: &str, main_cf: &str) -> Vec<String> {
    let directory = directory_with(main_cf);
    let config = directory.load(&[]).unwrap();
    let param = TABLE.iter().find(|param| param.name == name).unwrap();
    let result = (param.check)(&config);
    let mut said = config.take_warnings();
    if let Err(error) = result {
        said.extend(error.warnings().iter().cloned());
        said.push(error.to_string());
    }
    said.iter().map(|line| directory.anonymous(line)).collect()
}
