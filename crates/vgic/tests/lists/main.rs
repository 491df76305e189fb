//! Tests for vCPUs with list registers, on a software model of the hardware's virtual CPU
//! interface.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod entered;
#[expect(dead_code, reason = "shared with other tests")]
#[path = "../model/half.rs"]
mod half;
mod idle;
mod its;
mod links;
mod messages;
mod monitor;
mod race;
mod reference;
mod registers;
mod unlisted;
#[path = "../model/virtual_interface.rs"]
mod virtual_interface;
