//! Macros for every package: setters of configuration structs, and `Debug` by selected fields.

/// Defines a `with_…` method for each named field of a `#[non_exhaustive]` configuration struct.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    ($($with:ident: $field:ident: $type:ty,)*) => {
        $crate::setters! {$(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
            $with: $field: $type,
        )*}
    };
    ($($(#[$doc:meta])+ $with:ident: $field:ident: $type:ty,)*) => {$(
        $(#[$doc])+
        #[must_use]
        pub fn $with(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )*};
}

/// Implements [`Debug`](core::fmt::Debug) for a type by these fields alone, as others have no
/// useful form: locks, `dyn` references, tables.
#[doc(hidden)]
#[macro_export]
macro_rules! debug_by {
    (
        [$($generics:tt)*] $type:ty as $name:literal,
        |$it:ident| {$($field:ident: $value:expr),*}
    ) => {
        impl<$($generics)*> core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let $it = self;
                let mut out = f.debug_struct($name);
                $(out.field(stringify!($field), &$value);)*
                out.finish_non_exhaustive()
            }
        }
    };
    ($type:ty as $($rest:tt)*) => {
        $crate::debug_by!([] $type as $($rest)*);
    };
}
