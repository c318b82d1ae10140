//! The form of a parameter, and the macro that turns the list in `table.rs` into a table and into functions.
//!
//! The values are left to `kinds` and `keywords`.

use super::{Config, Error};

/// One parameter of main.cf.
#[derive(Debug)]
pub struct Param {
    pub name: &'static str,
    /// The kind of its values, in the manual's words.
    pub kind: &'static str,
    pub default: DefaultValue,
    /// Bounds of a number, of the seconds of a time, of the length of text. 0 is no bound.
    pub min: i64,
    pub max: i64,
    /// Its purpose, in one line.
    pub doc: &'static str,
    /// Whether it has an effect on qmqpd. The others can be referred to, and are checked.
    pub acts: bool,
    /// Evaluates the parameter, and checks its value.
    pub check: fn(&Config) -> Result<(), Error>,
}

/// The value of a parameter that is not set.
#[derive(Debug)]
pub enum DefaultValue {
    Text(&'static str),
    /// It depends on this machine or this process.
    Computed(Compute),
    /// The same, and main.cf cannot change it.
    Fixed(Compute),
}

/// Computes the value of the parameter.
pub type Compute = fn(&Config, &Param) -> Result<Vec<u8>, Error>;

/// Turns a list of parameters into the [`TABLE`](super::TABLE), in the list's order, and into functions of `Config`
/// with their names.
///
/// A row ends with `acts` if the program asks for the parameter, with `acts_in_values` if it changes other parameters,
/// and with `asked` if a rule about other parameters needs it. The compiler checks the rows: a row without such a word
/// has no function, and an unused function is an error.
macro_rules! parameters {
    (@acts acts) => { true };
    (@acts acts_in_values) => { true };
    (@acts $($other:ident)?) => { false };

    (@function acts_in_values $($row:tt)+) => {};
    (@function acts $($row:tt)+) => { parameters!(@function asked $($row)+); };
    (@function asked $doc:literal $name:ident $kind:ident) => {
        #[doc = $doc]
        #[deny(dead_code)]
        pub fn $name(&self) -> Result<<$kind as Kind>::Value, Error> {
            self.evaluate::<$kind>(Position::$name as usize)
        }
    };
    (@function $doc:literal $name:ident $kind:ident) => {};

    ($(
        #[doc = $doc:literal]
        $name:ident: $kind:ident =
            $($text:literal)? $(computed $computed:ident)? $(fixed $fixed:ident)?
            $(, min $min:literal)? $(, max $max:literal)?
            $(=> $part:ident)?;
    )+) => {
        /// Positions in [`TABLE`].
        #[allow(non_camel_case_types, reason = "parameters keep their names")]
        #[derive(Clone, Copy)]
        enum Position { $($name),+ }

        /// Every parameter that can be referred to, in the order in which Postfix's daemons load them.
        pub static TABLE: &[Param] = &[$(
            Param {
                name: stringify!($name),
                kind: <$kind as Kind>::NAME,
                default: $(DefaultValue::Text($text))? $(DefaultValue::Computed($computed))? $(DefaultValue::Fixed($fixed))?,
                min: 0 $(+ $min)?,
                max: 0 $(+ $max)?,
                doc: $doc.trim_ascii_start(),
                acts: parameters!(@acts $($part)?),
                check: |config| config.evaluate::<$kind>(Position::$name as usize).map(drop),
            },
        )+];

        impl Config {$(
            parameters!(@function $($part)? $doc $name $kind);
        )+}
    };
}
pub(super) use parameters;
