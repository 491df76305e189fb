//! Tests for vCPUs with list registers, on a software model of the hardware's virtual CPU
//! interface.

mod arrivals;
mod entered;
mod idle;
mod its;
mod links;
mod messages;
mod monitor;
mod race;
mod registers;
mod unlisted;
