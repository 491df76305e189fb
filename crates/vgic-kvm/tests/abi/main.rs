//! The numbers of KVM's device attributes and the layouts of its table entries, typed by hand from
//! Linux's documentation, and checked over their whole range.

mod attributes;
mod entries;
