//! A macro that defines the setters of configuration structs in every package.

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
