//! What every implementation of a seam promises: each statement is tried on real sockets and in the model.
//!
//! A model that is kinder, or ruder, than a kernel would make simulations lie. So nothing here is said of one of them only,
//! and nothing depends on how long things take.

mod datagram;

mod gossip;
mod ground;
mod machine;
mod net;
mod prober;
mod server;

/// Tries each of these on real sockets, in the model between two machines, and in the model on one machine.
macro_rules! holds_everywhere {
    ($($name:ident)*) => {
        mod on_real_sockets {
            $(#[test] fn $name() { crate::sim::contract::ground::real(super::$name); })*
        }
        mod between_modelled_machines {
            $(#[test] fn $name() { crate::sim::contract::ground::modelled(true, super::$name); })*
        }
        mod on_one_modelled_machine {
            $(#[test] fn $name() { crate::sim::contract::ground::modelled(false, super::$name); })*
        }
    };
}
use holds_everywhere;
