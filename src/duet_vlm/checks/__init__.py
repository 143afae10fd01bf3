"""`duet check`: the library's promises, tried on a user's own model, versions, device, dtype and attention.

What is noise and what is a fault:

- Where a promise says "bit for bit", nothing is allowed. If stock itself gives other numbers when it is called twice,
  such a line is not checked, and says so.
- Elsewhere two ways of computing the same are compared. Stock is run in the same two ways on the same prompts, and what
  differs there is this model's rounding on this device: four times that is allowed, and two units of the dtype's last
  place at the largest log-probability. More than half of the dtype's digits is no rounding, whatever stock does: a
  model that is itself at odds in these two ways fails, and the line says that stock does too.
- Text is never compared. The same tokens are put in stock's and our mouth, and log-probabilities are compared, so a
  near tie between two words decides nothing.
- Which visual tokens are kept is a decision, and rounding can tip it between two that are almost alike. Where the kept
  places differ, the scores of those that changed places are compared: between the two ways, and in each way with the
  nearest of those chosen instead. A score is an exponentiated logit, so its relative difference is allowed what a
  log-probability is, and twice that, as two scores moved. More is a fault. Within it, the promise is tried again with
  a schedule of the same counts whose choices depend on no score, so that what is compared is the rest.
"""
