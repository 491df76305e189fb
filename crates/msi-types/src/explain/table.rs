//! A macro that defines what can be said at the stages of an interrupt's path.

use super::Stage;
use core::fmt;

/// Stable number of a rule, or of what an explanation can state. The command `doorbell why`
/// explains it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DB{:04}", self.0)
    }
}

/// Row of the table of facts, of obstacles or of setup faults.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Statement {
    /// Stable code.
    pub code: Code,
    /// Stage that the statement is about.
    pub stage: Stage,
    /// Event or condition, in a sentence without values.
    pub meaning: &'static str,
    /// The sentence, with the names of values in braces.
    pub text: &'static str,
    /// Advice; empty if there is none, or if it depends on the values.
    pub fix: &'static str,
}

/// Defines an enum whose variants are grouped by stage. Each states its code, its text, as for
/// `write!`, and optionally advice. The text may use the fields by name. A new variant takes the
/// next code of its table.
macro_rules! stages {
    ($(#[$attribute:meta])* pub enum $name:ident {$($stage:ident {$(
        $(#[doc = $doc:literal])*
        $code:literal $variant:ident $(($($value:ident: $kind:ty),*))?
        $({$($(#[$about:meta])* $field:ident: $type:ty,)*})?
        $text:literal $(($($argument:expr),*))? $(=> $fix:literal)?;
    )*})*}) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
        #[non_exhaustive]
        pub enum $name {$($(
            $(#[doc = $doc])*
            $variant $(($($kind),*))? $({$($(#[$about])* $field: $type,)*})?,
        )*)*}

        impl $name {
            /// Rows of all variants, in the order of their stages.
            pub const STATEMENTS: &'static [Statement] = &[$($(Statement {
                code: Code($code),
                stage: Stage::$stage,
                meaning: concat!($($doc),*),
                text: $text,
                fix: [$($fix,)? ""][0],
            },)*)*];

            const fn stated_code(self) -> Code {
                match self {
                    $($(Self::$variant { .. } => Code($code),)*)*
                }
            }

            const fn stated_stage(self) -> Stage {
                match self {
                    $($(Self::$variant { .. } => Stage::$stage,)*)*
                }
            }

            pub(super) const fn stated_fix(self) -> &'static str {
                match self {
                    $($(Self::$variant { .. } => [$($fix,)? ""][0],)*)*
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match *self {
                    $($(Self::$variant $(($($value),*))? $({$($field,)*})? => {
                        $($(_ = $value;)*)?
                        $($(_ = $field;)*)?
                        write!(f, $text $(, $($argument),*)?)
                    })*)*
                }
            }
        }
    };
}

pub(super) use stages;
