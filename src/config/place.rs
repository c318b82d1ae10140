//! The place that sets a parameter, for messages about its value.
//!
//! A serving process asks only when it is about to end. The error itself is `config::error`'s.

use super::{Config, Error, lines, main_cf, read_file};

/// The place of the value that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The first line of the entry in main.cf.
    Line(usize),
    /// `-o`
    CommandLine,
}

impl Config {
    /// The place that sets `name`, if one does and main.cf can still be read. Reads the file again.
    pub fn place_of(&self, name: &str) -> Option<Place> {
        let value = self.as_set(name)?;
        let bytes = read_file(self.main_cf()).ok()?;
        let last = lines::logical_lines(&bytes)
            .filter_map(|line| {
                let text = line.text.split(|&b| b == 0).next()?;
                let (found, value) = main_cf::split(text).ok()?;
                (found == name.as_bytes()).then(|| (line.first_line, value.to_vec()))
            })
            .last();
        match last {
            Some((line, found)) if found == *value => Some(Place::Line(line)),
            Some(_) | None => Some(Place::CommandLine),
        }
    }

    /// `FILE, line N`, or the option, that sets `name`.
    pub fn place_text(&self, name: &str) -> Option<String> {
        Some(match self.place_of(name)? {
            Place::Line(line) => format!("{}, line {line}", self.main_cf()),
            Place::CommandLine => "option -o".to_owned(),
        })
    }

    /// The error of the parameter `name`, after the place that sets it.
    pub fn located(&self, name: &str, text: &str) -> String {
        let file = format!("file {}: ", self.main_cf());
        let Some(place) = self.place_text(name) else {
            return text.to_owned();
        };
        let text = text.strip_prefix(&file).unwrap_or(text);
        if text.contains(name) {
            format!("{place}: {text}")
        } else {
            format!("{place}: {name}: {text}")
        }
    }

    /// The error, after the place that sets its parameter.
    pub fn locate(&self, error: Error) -> Error {
        match error.parameter() {
            Some(name) => {
                let text = self.located(name, &error.to_string());
                error.with_text(text)
            }
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::directory_with;

    #[test]
    fn a_place_is_the_entry_that_counts() {
        let directory = directory_with("# c\na = 1\n\nsoft_bounce = no\na = \n  2\nb = 1\n");
        let config = directory.load(&["b=2", "c=3"]).unwrap();
        assert_eq!(config.place_of("a"), Some(Place::Line(5)));
        assert_eq!(config.place_of("b"), Some(Place::CommandLine));
        assert_eq!(config.place_of("c"), Some(Place::CommandLine));
        assert_eq!(config.place_of("d"), None);
    }

    #[test]
    fn an_error_has_its_place_and_its_parameter() {
        let directory = directory_with(
            "soft_bounce = maybe\nrelayhost = $relayhost\nmyhostname = -\nmydestination = ${x\n",
        );
        let config = directory.load(&["qmqpd_timeout=x"]).unwrap();
        let main_cf = config.main_cf();
        let shown = |error: Error| config.locate(error).to_string().replace(&main_cf, "FILE");
        let line = |n: usize, text: &str| format!("FILE, line {n}: {text}");
        assert_eq!(
            shown(config.soft_bounce().unwrap_err()),
            line(1, "bad boolean configuration: soft_bounce = maybe")
        );
        assert_eq!(
            shown(config.myhostname().unwrap_err()),
            line(3, "parameter myhostname: bad parameter value: -")
        );
        assert_eq!(
            shown(config.qmqpd_timeout().unwrap_err()),
            "option -o: parameter qmqpd_timeout: bad time value or unit: x"
        );
        let param = crate::config::TABLE
            .iter()
            .find(|p| p.name == "mydestination")
            .unwrap();
        assert_eq!(
            shown((param.check)(&config).unwrap_err()),
            line(
                4,
                "mydestination: dictionary mail_dict: macro processing error"
            )
        );
    }
}
