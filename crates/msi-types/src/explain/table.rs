//! A macro that defines what can be said at the stages of an interrupt's path.

/// Defines an enum whose variants are grouped by stage. Each states its text, as for `write!`, and
/// optionally advice. The text may use the fields by name.
macro_rules! stages {
    ($(#[$attribute:meta])* pub enum $name:ident {$($stage:ident {$(
        $(#[$doc:meta])*
        $variant:ident $(($($value:ident: $kind:ty),*))?
        $({$($(#[$about:meta])* $field:ident: $type:ty,)*})?
        $text:literal $(($($argument:expr),*))? $(=> $fix:literal)?;
    )*})*}) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
        #[non_exhaustive]
        pub enum $name {$($(
            $(#[$doc])*
            $variant $(($($kind),*))? $({$($(#[$about])* $field: $type,)*})?,
        )*)*}

        impl $name {
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
