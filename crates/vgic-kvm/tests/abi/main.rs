//! The numbers of KVM's device attributes and the layouts of its table entries, typed by hand from
//! Linux's documentation, over their whole space.

mod attributes;
mod entries;
