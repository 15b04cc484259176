//! LogQL, as Grafana and logcli send it: from the text to what the index is asked, and to what of each line decides.
//!
//! ```text
//!  query ─► parse ─► tree ─┬─► to_index   a superset of what it finds, for OpenSearch
//!                          ├─► pipeline   one line and its labels: found, or not
//!                          └─► leaves ─► windows ─► evaluate   of a metric query
//! ```
//! A line filter of LogQL is a substring with its case, and the index knows words. So the index only chooses candidates,
//! and [`pipeline`] looks at each whole line.

mod tree;
mod lex;
mod parse;
mod units;
mod template;
mod extract;
mod row;
pub mod pipeline;
mod to_index;
mod windows;
mod evaluate;
mod detect;
pub mod params;

pub use detect::{Detected, detect};
pub use evaluate::{Outcome, Series, evaluate};
pub use parse::{LogQlError, parse, parse_selector};
pub use row::{Labels, Row};
pub use to_index::{Candidates, KEYWORDS, candidates, keyword_of};
pub use tree::{Expr, LogExpr, Matcher, Metric, RangeExpr};
pub use windows::{Boundaries, Counted, Samples, Windows};
