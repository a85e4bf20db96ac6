//! From syntax tree to compact form: names become slots, types are checked, constants folded.

mod arithmetic;
mod loops;
mod names;
mod select;
mod terms;
mod text;
mod tree;

#[cfg(test)]
mod tests;

pub(crate) use names::Said;
pub use names::{Names, Roots};
pub(super) use tree::lower;
