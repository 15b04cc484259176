//! What a client asks for: which events, which page of them.

use api::parameters::Order;
use stages::time::Micros;

use crate::cursor::{Asked, Cursor};
use crate::expression::Query;

/// A page that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Which events.
    pub filters: Filters,
    /// Which of these; absent in a plain list.
    pub query: Option<Query>,
    /// What its cursors belong to.
    pub asked: Asked,
    /// Which of them come first.
    pub order: Order,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// Most events to answer with.
    pub limit: u32,
}

/// Typed filters; an empty choice means any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters {
    /// Any of these services.
    pub services: Vec<String>,
    /// Any of these levels, as they are stored.
    pub levels: Vec<String>,
    /// At this time or after.
    pub from: Option<Micros>,
    /// Before this time.
    pub to: Option<Micros>,
}
