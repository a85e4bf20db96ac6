//! The condition language: CEL text → checked tree over slots → holds, fails, or cannot tell.

mod alike;
mod eval;
mod fault;
mod fuse;
mod lower;
mod node;
mod operate;
mod print;
mod source;
mod walk;

pub use alike::only_adds;
pub use eval::Frame;
pub use fault::Fault;
pub(crate) use lower::Said;
pub use lower::{Names, Roots};
pub use node::Condition;
pub use source::{MAX_SOURCE, compile, on_deep_stack};
