//! What every bundled server must do. Each function takes a server's `run` and panics where it falls short.

pub mod addresses;
pub mod clients;
pub mod files;
pub mod hostility;
pub mod ports;
pub mod recovery;
pub mod running;
pub mod sharing;
pub mod transfers;
pub mod uploads;
