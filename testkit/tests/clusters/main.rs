//! Clusters come and go beside stores that live on. Each story has clusters, a PostgreSQL and a queue of its own: it
//! changes the passwords of the platform's roles, which are one PostgreSQL's, or shows that nobody does.

mod site;
mod rebuilt;
mod second;
