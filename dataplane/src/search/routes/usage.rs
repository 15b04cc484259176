//! The routes of usage: what the tenant has sent, and whose key asks.

use api::usage::Form;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use query::params::{self, usage as parameters};

use super::super::{Error, Search, usage as shown};
use super::{answer, caller, now, pairs, read};

pub(super) async fn usage(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    let now = now();
    let question = parameters::read(&pairs(&uri)?, now, caller.tenant.registered().total_days)?;
    let work = |reader: super::Reader, tenant: std::sync::Arc<super::Tenant>| async move {
        reader.usage(&tenant, &question, now).await
    };
    let usage = read(&search, &caller, work).await?;
    match question.form {
        Form::Json => answer(usage),
        Form::Csv => {
            let kind = (CONTENT_TYPE, "text/csv; charset=utf-8");
            let named = (CONTENT_DISPOSITION, "attachment; filename=\"usage.csv\"");
            Ok(([kind, named], shown::csv(&usage)).into_response())
        }
    }
}

pub(super) async fn me(State(search): State<Search>, headers: HeaderMap, uri: Uri) -> Result<Response, Error> {
    let caller = caller(&search, &headers)?;
    params::none(&pairs(&uri)?)?;
    answer(shown::me(&caller))
}
