//! What a parameter is, and the macro that makes the table and the functions of the same names out of one list.
//!
//! The list itself is `table.rs`.

use super::{Config, Error};

/// One parameter of main.cf.
#[derive(Debug)]
pub struct Param {
    pub name: &'static str,
    /// What its values are, in the manual's words.
    pub kind: &'static str,
    pub default: DefaultValue,
    /// Bounds of a number, of the seconds of a time, of the length of text. 0 is no bound.
    pub min: i64,
    pub max: i64,
    /// What it is for, in one line.
    pub doc: &'static str,
    /// It changes what qmqpd does. The others are there to be referred to, and are checked.
    pub acts: bool,
    /// Evaluates the parameter, and says whether its value will do.
    pub check: fn(&Config) -> Result<(), Error>,
}

/// A parameter's value where nobody has set it.
#[derive(Debug)]
pub enum DefaultValue {
    Text(&'static str),
    /// Depends on this machine or this process.
    Computed(Compute),
    /// The same, and main.cf cannot change it.
    Fixed(Compute),
}

/// Computes the value of the parameter.
pub type Compute = fn(&Config, &Param) -> Result<Vec<u8>, Error>;

/// Makes out of a list of parameters the [`TABLE`](super::TABLE), in the list's order, and functions of `Config` that
/// have their names.
///
/// A row ends with `acts` where the program asks for the parameter, with `acts_in_values` where it changes what other
/// parameters come to, and with `asked` where a rule about other parameters needs it. The compiler holds the rows to the
/// program: a row without a word has no function, and a function that the program does not call is an error.
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
