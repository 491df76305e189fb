//! Tests for KVM's device attribute numbers and table entry layouts. The expected values are typed
//! by hand from Linux's documentation and cover every attribute group and entry field.

mod attributes;
mod entries;
