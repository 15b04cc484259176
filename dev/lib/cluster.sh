# shellcheck shell=bash
cluster_running() { process_running kube-apiserver; }
