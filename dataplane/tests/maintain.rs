//! `maintain` against real stores: the archive reads back, what was left behind is indexed, usage
//! is counted once, and what is expired goes.

#[path = "support/bench.rs"]
mod bench;
#[path = "maintain/archive.rs"]
mod archive;
#[path = "maintain/late_index.rs"]
mod late_index;
#[path = "maintain/look.rs"]
mod look;
#[path = "maintain/redrive.rs"]
mod redrive;
#[path = "maintain/usage.rs"]
mod usage;
#[path = "maintain/expiry.rs"]
mod expiry;
#[path = "maintain/series.rs"]
mod series;
#[path = "maintain/privileges.rs"]
mod privileges;
#[path = "maintain/tls.rs"]
mod tls;
#[path = "maintain/verify.rs"]
mod verify;
#[path = "maintain/rebuild.rs"]
mod rebuild;
#[path = "maintain/tool.rs"]
mod tool;
#[path = "maintain/months.rs"]
mod months;
#[path = "maintain/passes.rs"]
mod passes;
