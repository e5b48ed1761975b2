"""The report: one self-contained HTML page for a job, or for a chain of jobs, made from their records alone.

`python -m nativealign_workloads.report` is called by the local runner and by people. Nothing else imports this package. Every
number on the page stands in a status or a manifest, or is a count, share or check over numbers that do; what no record holds
is called "not measured", with the reason.

    gather      status.json and the store's manifests -> Job
    align, pretrain, evaluate, overview, ledger   Job -> what the templates show; pure
    figures, flow   numbers -> inline SVG; pure
    text        corpus text, which is untrusted -> paragraphs with direction and differences; pure
    page        all of it -> HTML
"""
